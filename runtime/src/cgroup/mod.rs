//! The run's cgroup: created, limited, read back, killed, removed.
//!
//! It is always new and its name is unique, because killing and removing affect every process in it. It is below the caller's own cgroup,
//! so that limits of the caller (for example of a job scheduler) apply to the run as well. Version 1, version 2 and both at once are
//! detected from the mounts, for each controller.

mod detect;
mod v1;
mod v2;

use crate::observations::{LimitMechanism, LimitObservation};
use crate::spec::{LimitName, Limits};
use crate::{hooks, procfs};
pub(crate) use detect::{Hierarchies, Parent, Version};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The prefix of every directory that this module creates or removes.
pub(crate) const PREFIX: &str = "invarlock-";
/// How often, and with which pause, a dying cgroup is checked.
const ATTEMPTS: u32 = 2000;
const PAUSE: Duration = Duration::from_millis(1);

/// A controller that a run uses.
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
            Self::Memory => hooks::off("memory limit"),
            Self::Pids => hooks::off("pids limit"),
            Self::Cpu => hooks::off("cpu limit"),
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

/// One directory of the run, with its controllers.
#[derive(Debug)]
struct Group {
    version: Version,
    dir: PathBuf,
    controllers: Vec<Controller>,
}

/// The run's cgroup: one directory for each hierarchy.
#[derive(Debug, Default)]
pub(crate) struct RunCgroup {
    groups: Vec<Group>,
    missing: BTreeMap<Controller, String>,
}

/// What the controllers counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) peak_memory: Option<u64>,
    pub(crate) oom_kills: Option<u64>,
    pub(crate) forks_refused: Option<u64>,
}

impl RunCgroup {
    /// The directories of run `id`; none is created yet.
    pub(crate) fn plan(id: &str) -> Self {
        let mut cgroup = RunCgroup::default();
        let hierarchies = Hierarchies::read();
        for controller in Controller::ALL {
            match hierarchies.as_ref().map_err(Clone::clone).and_then(|all| all.find(controller)) {
                Ok(Parent { version, dir: parent }) => {
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

    /// Creates the directories. For one that the caller may not create, the reason is recorded and other mechanisms are used.
    pub(crate) fn create(&mut self) {
        let (planned, missing) = (std::mem::take(&mut self.groups), &mut self.missing);
        for group in planned {
            let result = match group.version {
                Version::V1 => {
                    fs::create_dir(&group.dir).map_err(|e| format!("creating {}: {e}", group.dir.display()))
                }
                Version::V2 => v2::create(&group.dir, &group.controllers),
            };
            hooks::step("supervisor: first cgroup tried");
            match result {
                Ok(()) => self.groups.push(group),
                Err(reason) => missing.extend(group.controllers.iter().map(|c| (*c, reason.clone()))),
            }
        }
    }

    /// Why this controller is not used.
    pub(crate) fn missing(&self, controller: Controller) -> Option<&str> {
        self.missing.get(&controller).map(String::as_str)
    }

    /// Sets every limit and reads it back.
    pub(crate) fn limit(&self, limits: &Limits) -> Result<Vec<LimitObservation>> {
        let mut observed = Vec::new();
        for group in &self.groups {
            for controller in &group.controllers {
                let (requested, effective) = match group.version {
                    _ if controller.is_off() => (0, u64::MAX),
                    Version::V1 => v1::limit(&group.dir, *controller, limits)?,
                    Version::V2 => v2::limit(&group.dir, *controller, limits)?,
                };
                if effective > requested && !hooks::unchecked("limits") {
                    return Err(Error::integrity(format!(
                        "the {} limit was set to {requested}, but {} contains {effective}",
                        controller.name(),
                        group.dir.display()
                    ))
                    .in_control("limits"));
                }
                let mechanism = LimitMechanism::Cgroup;
                observed.push(LimitObservation::new(
                    controller.limit(),
                    requested,
                    mechanism,
                    Some(effective),
                    None,
                ));
            }
        }
        Ok(observed)
    }

    /// Files that the builder writes `0` to, to enter on version 1: `tasks`, which needs no grace period of the kernel.
    pub(crate) fn entrances(&self) -> Result<Vec<File>> {
        let open = |g: &Group| {
            let path = g.dir.join("tasks");
            OpenOptions::new().write(true).open(&path).with_context(|| format!("opening {}", path.display()))
        };
        self.groups.iter().filter(|g| g.version == Version::V1).map(open).collect()
    }

    /// The directory that the builder is cloned into, on version 2.
    pub(crate) fn clone_target(&self) -> Result<Option<File>> {
        let Some(group) = self.groups.iter().find(|g| g.version == Version::V2) else { return Ok(None) };
        File::open(&group.dir).map(Some).with_context(|| format!("opening {}", group.dir.display()))
    }

    /// The file that the builder writes `0` to on version 2, if it cannot be cloned into the cgroup.
    pub(crate) fn slow_entrance(&self) -> Result<Option<File>> {
        let Some(group) = self.groups.iter().find(|g| g.version == Version::V2) else { return Ok(None) };
        let path = group.dir.join("cgroup.procs");
        OpenOptions::new()
            .write(true)
            .open(&path)
            .map(Some)
            .with_context(|| format!("opening {}", path.display()))
    }

    /// Kills every process in the run's directories, until they are empty.
    pub(crate) fn kill(&self) -> Result<()> {
        self.groups.iter().try_for_each(|g| kill_dir(&g.dir))
    }

    /// Reads the counters. To be called before [`RunCgroup::remove`].
    pub(crate) fn counters(&self) -> Counters {
        let with = |controller| self.groups.iter().find(|g| g.controllers.contains(&controller));
        let memory = match with(Controller::Memory) {
            Some(g) if g.version == Version::V1 => v1::counters(&g.dir),
            Some(g) => v2::counters(&g.dir),
            None => Counters::default(),
        };
        let forks_refused =
            with(Controller::Pids).and_then(|g| read_keyed(&g.dir.join("pids.events"), "max"));
        Counters { forks_refused, ..memory }
    }

    /// Removes the directories. Processes still inside are killed.
    pub(crate) fn remove(&self) -> Result<()> {
        self.groups.iter().try_for_each(|g| remove_dir(&g.dir))
    }
}

/// Enters cgroups of version 1 through their opened `tasks`. The caller must have one thread.
pub(crate) fn enter(entrances: &[File]) -> Result<()> {
    entrances.iter().try_for_each(|mut tasks| tasks.write_all(b"0").context("entering the run's cgroup"))
}

/// Kills and removes the cgroup of a dead supervisor, if it has the name that this module gave it.
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
    for _ in 0..ATTEMPTS {
        let inside = pids(dir)?;
        if inside.is_empty() {
            return Ok(());
        }
        for pid in inside {
            let Some(pid) = rustix::process::Pid::from_raw(pid) else { continue };
            let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
                continue;
            };
            // The pid may have been reused before the handle was opened, so the process must still be inside.
            if pids(dir)?.contains(&pid.as_raw_nonzero().get()) {
                _ = rustix::process::pidfd_send_signal(handle.as_fd(), rustix::process::Signal::KILL);
            }
        }
        std::thread::sleep(PAUSE);
    }
    Err(Error::system(format!("processes in {} did not die", dir.display())))
}

fn pids(dir: &Path) -> Result<Vec<i32>> {
    let path = dir.join("cgroup.procs");
    match procfs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => Ok(other
            .with_context(|| format!("reading {}", path.display()))?
            .lines()
            .filter_map(|l| l.parse().ok())
            .collect()),
    }
}

fn remove_dir(dir: &Path) -> Result<()> {
    for _ in 0..ATTEMPTS {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                kill_dir(dir)?;
                std::thread::sleep(PAUSE);
            }
            Err(e) => return Err(e).with_context(|| format!("removing {}", dir.display())),
        }
    }
    Err(Error::system(format!("removing {}: it is still busy", dir.display())))
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("writing {value:?} to {}", path.display()))
}

fn read_number(path: &Path) -> Result<u64> {
    let text = procfs::read(path).with_context(|| format!("reading {}", path.display()))?;
    match text.trim() {
        "max" | "-1" => Ok(u64::MAX),
        number => {
            number.parse().err_kind(Kind::System).with_context(|| format!("reading {}", path.display()))
        }
    }
}

/// The number after `key` in a file of `key value` lines.
fn read_keyed(path: &Path, key: &str) -> Option<u64> {
    let text = procfs::read(path).ok()?;
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Microseconds of a scheduling period.
pub(crate) const CPU_PERIOD: u64 = 100_000;
