//! The run's own cgroup: found, made, limited, read back, killed, removed.
//!
//! It is always fresh and its name is unique, because killing and removing work on whatever is in it. It lies below the
//! caller's own cgroup, so that limits of the caller (a job scheduler's) hold for the run as well. Version 1, version 2 and both at once
//! are found by what is mounted, controller by controller.

mod detect;
mod v1;
mod v2;

use crate::kernel;
use crate::observe::{By, LimitRow};
use crate::spec::{LimitName, Limits};
pub(crate) use detect::{Hierarchies, Place, Version, unescape};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Every directory this module makes or removes starts with it.
pub(crate) const PREFIX: &str = "invarlock-";
/// How often and how long a dying cgroup is waited for.
const PATIENCE: u32 = 2000;
const PAUSE: Duration = Duration::from_millis(1);

/// A controller that a run wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }

    /// Whether a test leaves its limit out.
    pub(crate) fn is_off(self) -> bool {
        match self {
            Self::Memory => crate::hooks::off("memory limit"),
            Self::Pids => crate::hooks::off("pids limit"),
            Self::Cpu => crate::hooks::off("cpu limit"),
        }
    }

    fn limit(self) -> LimitName {
        match self {
            Self::Memory => LimitName::Memory,
            Self::Pids => LimitName::Pids,
            Self::Cpu => LimitName::Cpu,
        }
    }
}

/// One directory of the run.
#[derive(Debug)]
struct Group {
    version: Version,
    dir: PathBuf,
    controllers: Vec<Controller>,
}

/// The run's cgroup: one directory a hierarchy.
#[derive(Debug, Default)]
pub(crate) struct RunCgroup {
    groups: Vec<Group>,
    missing: BTreeMap<Controller, String>,
}

/// What a run used, as far as something counted it.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) peak_memory: Option<u64>,
    pub(crate) oom_kills: Option<u64>,
    pub(crate) forks_refused: Option<u64>,
}

impl RunCgroup {
    /// Where the directories of run `id` would be; nothing is made yet.
    pub(crate) fn plan(id: &str) -> Self {
        let mut cgroup = RunCgroup::default();
        let hierarchies = Hierarchies::read();
        for controller in Controller::ALL {
            match hierarchies.as_ref().map_err(Clone::clone).and_then(|all| all.find(controller)) {
                Ok(Place { version, parent }) => {
                    let dir = parent.join(format!("{PREFIX}{id}"));
                    match cgroup.groups.iter_mut().find(|g| g.dir == dir) {
                        Some(group) => group.controllers.push(controller),
                        None => cgroup.groups.push(Group { version, dir, controllers: vec![controller] }),
                    }
                }
                Err(reason) => drop(cgroup.missing.insert(controller, reason)),
            }
        }
        cgroup
    }

    /// The directories, for the lock file.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        self.groups.iter().map(|g| g.dir.clone()).collect()
    }

    /// Makes the directories. What the caller may not make is left to other means and said so.
    pub(crate) fn create(&mut self) {
        let (made, missing) = (std::mem::take(&mut self.groups), &mut self.missing);
        for group in made {
            let result = match group.version {
                Version::V1 => {
                    fs::create_dir(&group.dir).map_err(|e| format!("making {}: {e}", group.dir.display()))
                }
                Version::V2 => v2::create(&group.dir, &group.controllers),
            };
            crate::hooks::step("supervisor: first cgroup tried");
            match result {
                Ok(()) => self.groups.push(group),
                Err(reason) => missing.extend(group.controllers.iter().map(|c| (*c, reason.clone()))),
            }
        }
    }

    /// Why this controller limits nothing.
    pub(crate) fn missing(&self, controller: Controller) -> Option<&str> {
        self.missing.get(&controller).map(String::as_str)
    }

    /// Sets every limit and reads it back.
    pub(crate) fn limit(&self, limits: &Limits) -> Result<Vec<LimitRow>> {
        let mut rows = Vec::new();
        for group in &self.groups {
            for controller in &group.controllers {
                let (asked, effective) = match group.version {
                    _ if controller.is_off() => (0, u64::MAX),
                    Version::V1 => v1::limit(&group.dir, *controller, limits)?,
                    Version::V2 => v2::limit(&group.dir, *controller, limits)?,
                };
                if effective > asked && !crate::hooks::unseen("limits") {
                    return Err(Error::integrity(format!(
                        "row \"limits\": the {} limit was set to {asked}, but {} says {effective}",
                        controller.name(),
                        group.dir.display()
                    )));
                }
                rows.push(LimitRow::new(controller.limit(), asked, By::Cgroup, Some(effective), None));
            }
        }
        Ok(rows)
    }

    /// What the builder writes `0` to, to enter: on version 1, `tasks`, which takes no grace period.
    pub(crate) fn entrances(&self) -> Result<Vec<File>> {
        let open = |g: &Group| {
            let path = g.dir.join("tasks");
            OpenOptions::new().write(true).open(&path).with_context(|| format!("opening {}", path.display()))
        };
        self.groups.iter().filter(|g| g.version == Version::V1).map(open).collect()
    }

    /// What the builder is cloned into, on version 2.
    pub(crate) fn clone_target(&self) -> Result<Option<File>> {
        let Some(group) = self.groups.iter().find(|g| g.version == Version::V2) else { return Ok(None) };
        File::open(&group.dir).map(Some).with_context(|| format!("opening {}", group.dir.display()))
    }

    /// What the builder writes `0` to on version 2, where it cannot be cloned into it.
    pub(crate) fn slow_entrance(&self) -> Result<Option<File>> {
        let Some(group) = self.groups.iter().find(|g| g.version == Version::V2) else { return Ok(None) };
        let path = group.dir.join("cgroup.procs");
        OpenOptions::new()
            .write(true)
            .open(&path)
            .map(Some)
            .with_context(|| format!("opening {}", path.display()))
    }

    /// Kills whatever is in the run's own directories, until nothing is.
    pub(crate) fn kill(&self) -> Result<()> {
        self.groups.iter().try_for_each(|g| kill_dir(&g.dir))
    }

    /// What was counted. Read before [`RunCgroup::remove`].
    pub(crate) fn counted(&self) -> Counted {
        let with = |controller| self.groups.iter().find(|g| g.controllers.contains(&controller));
        let memory = match with(Controller::Memory) {
            Some(g) if g.version == Version::V1 => v1::counted(&g.dir),
            Some(g) => v2::counted(&g.dir),
            None => Counted::default(),
        };
        let forks_refused =
            with(Controller::Pids).and_then(|g| read_keyed(&g.dir.join("pids.events"), "max"));
        Counted { forks_refused, ..memory }
    }

    /// Removes the directories. Whoever is still inside is killed.
    pub(crate) fn remove(&self) -> Result<()> {
        self.groups.iter().try_for_each(|g| remove_dir(&g.dir))
    }
}

/// Enters cgroups of version 1 through their opened `tasks`. The caller has one thread.
pub(crate) fn enter(entrances: &[File]) -> Result<()> {
    entrances.iter().try_for_each(|mut tasks| tasks.write_all(b"0").context("entering the run's cgroup"))
}

/// Kills and removes what a dead supervisor left; only directories that this module named.
pub(crate) fn sweep(dir: &Path, id: &str) -> Result<()> {
    if dir.file_name().and_then(|n| n.to_str()) != Some(&format!("{PREFIX}{id}"))
        || !dir.join("cgroup.procs").exists()
    {
        return Ok(());
    }
    remove_dir(dir)
}

fn kill_dir(dir: &Path) -> Result<()> {
    let kill = dir.join("cgroup.kill");
    if kill.exists() {
        return fs::write(&kill, "1").with_context(|| format!("writing {}", kill.display()));
    }
    for _ in 0..PATIENCE {
        let inside = pids(dir)?;
        if inside.is_empty() {
            return Ok(());
        }
        for pid in inside {
            let Some(pid) = rustix::process::Pid::from_raw(pid) else { continue };
            let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
                continue;
            };
            // The handle is of whoever has the pid now: it counts only if that one is still inside.
            if pids(dir)?.contains(&pid.as_raw_nonzero().get()) {
                _ = rustix::process::pidfd_send_signal(handle.as_fd(), rustix::process::Signal::KILL);
            }
        }
        std::thread::sleep(PAUSE);
    }
    Err(Error::system(format!("processes in {} do not die", dir.display())))
}

fn pids(dir: &Path) -> Result<Vec<i32>> {
    let path = dir.join("cgroup.procs");
    match kernel::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => Ok(other
            .with_context(|| format!("reading {}", path.display()))?
            .lines()
            .filter_map(|l| l.parse().ok())
            .collect()),
    }
}

fn remove_dir(dir: &Path) -> Result<()> {
    for _ in 0..PATIENCE {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                kill_dir(dir)?;
                std::thread::sleep(PAUSE);
            }
            Err(e) => return Err(Error::system(format!("removing {}: {e}", dir.display()))),
        }
    }
    Err(Error::system(format!("removing {}: it stays busy", dir.display())))
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("writing {value:?} to {}", path.display()))
}

fn read_number(path: &Path) -> Result<u64> {
    let text = kernel::read(path).with_context(|| format!("reading {}", path.display()))?;
    match text.trim() {
        "max" | "-1" => Ok(u64::MAX),
        number => {
            number.parse().err_kind(Kind::System).with_context(|| format!("reading {}", path.display()))
        }
    }
}

/// The number after `key` in a file of `key value` lines.
fn read_keyed(path: &Path, key: &str) -> Option<u64> {
    let text = kernel::read(path).ok()?;
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// As the kernel counts memory and the room of a tmpfs.
pub(crate) fn round_to_pages(bytes: u64) -> u64 {
    let page = rustix::param::page_size() as u64;
    bytes / page * page
}

/// Thousandths of a processor, the unit of the `cpu` row.
pub(crate) fn millicpus(limits: &Limits) -> u64 {
    (limits.cpus * 1000.0).round() as u64
}

/// Microseconds of a scheduling period.
const PERIOD: u64 = 100_000;
