//! The commands of `runtime run` that run now, for `runtime ps`, `stop` and `kill`. There is no daemon: each launcher has a file in a directory of
//! its user, and holds its lock. The file of a dead launcher is removed by the next one that looks.

use crate::error::{Context as _, Error, Kind, Result};
use invarlock_security::{abandoned, claim};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The directory, below that of the supervisors' locks.
const DIRECTORY: &str = "running";
/// The lock under which names are compared and taken.
const NAMES: &str = "names.lock";
const SUFFIX: &str = ".json";
/// Longest file that is read.
const MAX_FILE: u64 = 1 << 20;
/// Pause between two looks at a file.
const PAUSE: Duration = Duration::from_millis(10);

/// A running command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Running {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// The name that the user gave it.
    pub name: Option<String>,
    /// The image.
    pub image: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// When it was started: RFC 3339, UTC.
    pub started: String,
    /// The process id of its launcher.
    pub pid: u32,
    /// When that process was started, in clock ticks since the start of the machine. With it, the id means one process.
    pub pid_started: u64,
    /// How long it may take to end after SIGTERM, in seconds.
    pub stop_timeout: u64,
}

/// The file of this command, which is removed when it has ended.
pub struct Registered {
    path: PathBuf,
    _lock: File,
}

impl Drop for Registered {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.path);
    }
}

/// When a process was started, in clock ticks since the start of the machine.
pub fn started(pid: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in parentheses; the time is the 20th field after it.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A new id.
pub fn new_id() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::system(format!("creating an id: {error}")))?;
    Ok(hex::encode(bytes))
}

/// A name that options and files can contain.
pub fn check_name(name: &str) -> std::result::Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
    {
        true => Ok(()),
        false => {
            Err("a name has 1 to 64 letters, digits, `_`, `.` and `-`, and starts with a letter or digit")
        }
    }
}

fn directory() -> Result<PathBuf> {
    let directory = invarlock_runtime::state_directory()?.join(DIRECTORY);
    match std::fs::DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => other.with_context(|| format!("creating {}", directory.display()))?,
    }
    Ok(directory)
}

impl Running {
    /// Registers the command of this process. Fails if another one has its name.
    pub fn register(&self) -> Result<Registered> {
        let directory = directory()?;
        let doing = || format!("registering the run in {}", directory.display());
        let options = || {
            let mut options = File::options();
            options.read(true).write(true).mode(0o600);
            options
        };
        // Held until the file has its name.
        let names = options().create(true).truncate(false).open(directory.join(NAMES)).with_context(doing)?;
        flock(&names, FlockOperation::LockExclusive).with_context(doing)?;
        // This also removes the files of dead launchers.
        let others = all_in(&directory)?;
        if let Some(name) = &self.name
            && let Some(other) = others.into_iter().find(|other| other.name.as_ref() == Some(name))
        {
            return Err(Error::input(format!(
                "--name {name}: a running command has this name: {}",
                other.id
            )))
            .hint("choose another name, or end that command with `invarlock runtime stop`");
        }
        let path = directory.join(format!("{}{SUFFIX}", self.id));
        let mut file = options().create_new(true).open(&path).with_context(doing)?;
        // Another command that looked before the file was locked removed it as that of a dead launcher.
        while !claim(&file, &path).with_context(doing)? {
            file = options().create(true).truncate(false).open(&path).with_context(doing)?;
        }
        let registered = Registered { path, _lock: file.try_clone().with_context(doing)? };
        let text =
            serde_json::to_vec(self).map_err(|error| Error::system(error.to_string()).context(doing()))?;
        file.write_all(&text).with_context(doing)?;
        Ok(registered)
    }

    /// Asks the launcher to end the run; SIGTERM lets the command end by itself, SIGKILL does not.
    fn signal(&self, launcher: &OwnedFd, signal: Signal) -> Result<()> {
        match pidfd_send_signal(launcher, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("sending a signal to the launcher of {}", self.id))
            }
        }
    }

    /// The launcher, while it holds the lock of its file. Its process id cannot be that of another process then.
    fn launcher(&self) -> Result<Option<OwnedFd>> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(handle) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return Ok(None);
        };
        if !self.is_running()? {
            return Ok(None);
        }
        match started(&self.pid.to_string()) {
            Some(ticks) if ticks == self.pid_started => Ok(Some(handle)),
            _ => Err(Error::unsupported(format!(
                "the launcher of {} is not process {} here",
                self.id, self.pid
            )))
            .hint("end it where it was started: it can be in another container"),
        }
    }

    fn is_running(&self) -> Result<bool> {
        let path = directory()?.join(format!("{}{SUFFIX}", self.id));
        Ok(read(&path)?.is_some_and(|found| found.pid == self.pid))
    }

    /// Ends the run: SIGTERM, and SIGKILL after its time. Returns when its launcher has ended.
    pub fn stop(&self, time: Option<Duration>) -> Result<()> {
        let Some(launcher) = self.launcher()? else { return Ok(()) };
        self.signal(&launcher, Signal::TERM)?;
        // The launcher itself kills the command after its own time, and then reports.
        let own = Duration::from_secs(self.stop_timeout.saturating_add(5));
        if self.has_ended_in(time.unwrap_or(own))? {
            return Ok(());
        }
        self.kill()
    }

    /// Kills the run at once: its supervisor notices the death of the launcher. Returns when the launcher has ended.
    pub fn kill(&self) -> Result<()> {
        let Some(launcher) = self.launcher()? else { return Ok(()) };
        self.signal(&launcher, Signal::KILL)?;
        match self.has_ended_in(Duration::from_secs(30))? {
            true => Ok(()),
            false => Err(Error::system(format!("the launcher of {} does not end", self.id))),
        }
    }

    fn has_ended_in(&self, time: Duration) -> Result<bool> {
        let end = Instant::now().checked_add(time);
        while self.is_running()? {
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(false);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(true)
    }
}

/// The running commands of this user, by the time of their start.
pub fn all() -> Result<Vec<Running>> {
    all_in(&directory()?)
}

fn all_in(directory: &Path) -> Result<Vec<Running>> {
    let doing = || format!("reading {}", directory.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(doing)? {
        let path = entry.with_context(doing)?.path();
        if path.extension().is_some_and(|extension| extension == &SUFFIX[1..]) {
            found.extend(read(&path)?);
        }
    }
    found.sort_by(|one: &Running, other| (&one.started, &one.id).cmp(&(&other.started, &other.id)));
    Ok(found)
}

/// The command of a file; none if it has ended, or is about to write the file.
fn read(path: &Path) -> Result<Option<Running>> {
    let doing = || format!("reading {}", path.display());
    if abandoned(path).is_some() {
        _ = std::fs::remove_file(path);
        return Ok(None);
    }
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(doing)?,
    };
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).with_context(doing)?;
    Ok(serde_json::from_slice(&text).ok())
}

/// The running command of this name, or whose id starts so.
pub fn find(which: &str) -> Result<Running> {
    let all = all()?;
    if let Some(named) = all.iter().find(|running| running.name.as_deref() == Some(which)) {
        return Ok(named.clone());
    }
    let is_id = which.len() >= 4 && which.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut with_id = all.iter().filter(|running| is_id && running.id.starts_with(which));
    match (with_id.next(), with_id.next()) {
        (Some(one), None) => Ok(one.clone()),
        (Some(_), Some(_)) => {
            Err(Error::input(format!("{which}: several running commands have an id that starts so")))
                .hint("add digits")
        }
        (None, _) => Err(Error::new(Kind::Input, format!("{which}: no running command has this name or id")))
            .hint("`invarlock runtime ps` lists them; use a name, or at least four digits of an id"),
    }
}
