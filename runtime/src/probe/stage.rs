//! What the attacker needs, and what it must not change: an image, inputs, and a look at the host before and after.

use super::attacker;
use crate::identity::{Identity, ROOT_BASE};
use crate::spec::{ContainerSpec, Input, InputSource, Limits};
use invarlock_error::{Context as _, Error, Result};
use invarlock_seccomp::Profile;
use invarlock_security::SecureTempDir;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Memory of the attacker.
pub(super) const MEMORY: u64 = 96 << 20;
/// Its time, in the run that is about that.
pub(super) const WALL: Duration = Duration::from_millis(300);
/// Largest file that is read to see whether it changed.
const MAX_FILE: u64 = 1 << 30;

/// Everything of the host that is compared: path, kind, mode, owner and content.
type Look = BTreeMap<PathBuf, String>;

/// What changed on the host.
pub(super) struct Changes {
    /// Files that an attack was aimed at, and the launcher's own executable.
    pub(super) files: Vec<String>,
    /// Devices of the host.
    pub(super) devices: Vec<String>,
    /// Whether somebody reached the socket of the host.
    pub(super) reached: bool,
    /// Processes of the attacker that are left.
    pub(super) processes: Vec<u32>,
}

pub(super) struct Stage {
    dir: SecureTempDir,
    token: String,
    listener: OwnedFd,
    before: (Look, Look),
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
        let fail = || "preparing the probe".to_owned();
        let dir =
            SecureTempDir::new("invarlock-probe-").map_err(|e| Error::system(format!("{}: {e}", fail())))?;
        let image = dir.path().join("image");
        for name in ["", "dev", "in", "out", "proc", "tmp", "open"] {
            fs::create_dir(image.join(name)).with_context(fail)?;
            fs::set_permissions(image.join(name), Permissions::from_mode(0o755)).with_context(fail)?;
        }
        // What only its mount protects.
        fs::set_permissions(image.join("open"), Permissions::from_mode(0o777)).with_context(fail)?;
        for path in [image.join("open/file"), dir.path().join("input")] {
            fs::write(&path, "of the host").with_context(fail)?;
            fs::set_permissions(&path, Permissions::from_mode(0o666)).with_context(fail)?;
        }
        let program = image.join(attacker::NAME.trim_start_matches('/'));
        fs::copy("/proc/self/exe", &program).with_context(fail)?;
        if Identity::of_caller().by_root {
            // Root inside: what a set-uid program would give.
            std::os::unix::fs::chown(&program, Some(ROOT_BASE), Some(ROOT_BASE)).with_context(fail)?;
        }
        fs::set_permissions(&program, Permissions::from_mode(0o4755)).with_context(fail)?;
        let token =
            format!("il{}", &crate::state::new_id()?.split('-').next_back().unwrap_or_default()[..12]);
        let listener =
            rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).with_context(fail)?;
        let name = SocketAddrUnix::new_abstract_name(token.as_bytes()).with_context(fail)?;
        rustix::net::bind(&listener, &name).with_context(fail)?;
        rustix::net::listen(&listener, 8).with_context(fail)?;
        let before = (files(dir.path())?, devices()?);
        Ok(Stage { dir, token, listener, before })
    }

    /// A run of this part of the attacker, like any other run but for its limits.
    pub(super) fn spec(&self, part: &str) -> Result<ContainerSpec> {
        let fail = || "preparing the probe".to_owned();
        let path = |name: &str| self.dir.path().join(name);
        let file = |target: &str, path: PathBuf| -> Result<Input> {
            let file = File::open(&path).with_context(fail)?;
            Ok(Input { target: target.into(), source: InputSource::File { path, file } })
        };
        let mut limits = Limits::for_machine();
        limits.memory_bytes = MEMORY;
        limits.pids = 32;
        limits.open_files = 64;
        limits.tmp_bytes = 1 << 20;
        limits.output_bytes = 1 << 20;
        limits.output_files = 16;
        limits.wall = if part == "time" { WALL } else { Duration::from_secs(60) };
        if part == "processors" {
            limits.cpus = 0.2;
        }
        let program = attacker::NAME.trim_start_matches('/');
        Ok(ContainerSpec {
            rootfs: vec![path("image")],
            argv: vec![attacker::NAME.into(), part.into(), self.token.clone()],
            env: vec![("LANG".into(), "C".into())],
            cwd: "/".into(),
            inputs: vec![
                file("/in/file", path("input"))?,
                file("/in/program", path("image").join(program))?,
                Input { target: "/in/bytes".into(), source: InputSource::Bytes(b"of the launcher".to_vec()) },
            ],
            filter: Profile::general()
                .compile()
                .map_err(|e| Error::system(format!("compiling the filter of the probe: {e}")))?,
            limits,
            collect_output: true,
        })
    }

    /// What is different from before.
    pub(super) fn changes(&self) -> Result<Changes> {
        let (files, devices) = (files(self.dir.path())?, devices()?);
        let mut fds = [rustix::event::PollFd::new(&self.listener, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let reached = rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0);
        Ok(Changes {
            files: different(&self.before.0, &files),
            devices: different(&self.before.1, &devices),
            reached,
            processes: named(&self.token),
        })
    }

    pub(super) fn close(self) -> Result<()> {
        self.dir.close().map_err(|e| Error::system(e.to_string()))
    }
}

fn different(before: &Look, after: &Look) -> Vec<String> {
    let changed = before.iter().filter(|(path, what)| after.get(*path) != Some(*what)).map(|(path, _)| path);
    let new = after.keys().filter(|path| !before.contains_key(*path));
    changed.chain(new).map(|path| path.display().to_string()).collect()
}

/// The tree of the probe, and this executable.
fn files(root: &Path) -> Result<Look> {
    let mut look = Look::new();
    let own = rustix::fs::readlink("/proc/self/exe", Vec::new()).context("finding this executable")?;
    let own = PathBuf::from(std::ffi::OsString::from(own.to_string_lossy().into_owned()));
    let mut queue = vec![root.to_owned()];
    if own.exists() {
        look.insert(own.clone(), one(&own)?);
    }
    while let Some(path) = queue.pop() {
        look.insert(path.clone(), one(&path)?);
        if path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            let entries = fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))?;
            queue.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    Ok(look)
}

fn one(path: &Path) -> Result<String> {
    let fail = || format!("looking at {}", path.display());
    let meta = path.symlink_metadata().with_context(fail)?;
    let content = match meta.is_file() {
        true => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty()).with_context(fail)?);
            checksum(file).with_context(fail)?
        }
        false => 0,
    };
    Ok(format!("{:o} {}:{} {content:x}", meta.mode(), meta.uid(), meta.gid()))
}

/// Enough to notice a change; nothing is proved with it.
fn checksum(file: File) -> std::io::Result<u64> {
    use std::hash::Hasher as _;
    let mut hasher = std::hash::DefaultHasher::new();
    let mut file = file.take(MAX_FILE);
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hasher.finish()),
            count => hasher.write(&block[..count]),
        }
    }
}

/// Kind, mode and owner of the host's devices that a container gets.
fn devices() -> Result<Look> {
    let mut look = Look::new();
    for name in crate::boundary::DEVICES.map(|(name, _)| name).into_iter().chain(["tty"]) {
        let path = PathBuf::from(format!("/dev/{name}"));
        let meta = path.symlink_metadata().with_context(|| format!("looking at {}", path.display()))?;
        look.insert(path, format!("{:o} {}:{} {}", meta.mode(), meta.uid(), meta.gid(), meta.rdev()));
    }
    Ok(look)
}

/// Processes of this name.
fn named(name: &str) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name))
        .collect()
}
