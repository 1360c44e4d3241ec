//! Chooses the mechanism of each limit: the run's cgroup if there is one, otherwise resource limits, affinity and a watchdog.

use crate::boundary::TMP_INODES;
use crate::cgroup::{Controller, RunCgroup};
use crate::observations::{LimitMechanism, LimitObservation};
use crate::observe::{Root, differs};
use crate::rlimit::{self, Rlimit, RlimitKind};
use crate::spec::{LimitName, Limits, millicpus, round_to_pages};
use crate::{hooks, procfs};
use invarlock_error::{Context as _, Error, Result};
use rustix::fs::OFlags;
use rustix::process::Pid;
use std::os::fd::OwnedFd;

/// The limits of a run with their mechanisms.
#[derive(Debug)]
pub(crate) struct Enforcement {
    pub(crate) observed: Vec<LimitObservation>,
    /// All resource limits, as requested.
    pub(crate) rlimits: Vec<Rlimit>,
    /// All resource limits, as they were read back.
    pub(crate) observed_rlimits: Vec<Rlimit>,
    pub(crate) processors: Option<usize>,
}

/// Sets the limits of the cgroup and chooses mechanisms for the others. `container`: whether `/out` and `/tmp` are tmpfs of the run.
pub(crate) fn enforce(limits: &Limits, cgroup: &RunCgroup, container: bool) -> Result<Enforcement> {
    let mut observed = cgroup.limit(limits)?;
    let (no_memory, no_pids) = (cgroup.missing(Controller::Memory), cgroup.missing(Controller::Pids));
    let rlimits = rlimit::of_run(limits, no_memory.is_some(), no_pids.is_some() && container);
    let mut processors = None;
    if let Some(reason) = no_memory {
        let sum = match procfs::hides_processes() {
            false => "a watchdog checks their sum",
            true => "their sum is not checked, because /proc hides processes from this user (hidepid)",
        };
        let reason = format!(
            "no memory cgroup: {reason}; instead, the memory of each process is limited, without mapped files, and {sum}"
        );
        observed.push(LimitObservation::new(
            LimitName::Memory,
            limits.memory_bytes,
            LimitMechanism::Rlimit,
            None,
            Some(reason),
        ));
    }
    if let Some(reason) = no_pids {
        if container {
            let reason = format!("for the run's user in its namespace; no pids cgroup: {reason}");
            observed.push(LimitObservation::new(
                LimitName::Pids,
                limits.pids,
                LimitMechanism::Rlimit,
                None,
                Some(reason),
            ));
        } else {
            observed.push(LimitObservation::new(
                LimitName::Pids,
                limits.pids,
                LimitMechanism::None,
                None,
                Some(reason.to_owned()),
            ));
        }
    }
    if let Some(reason) = cgroup.missing(Controller::Cpu) {
        let count = (limits.cpus.ceil() as usize).max(1);
        processors = Some(count);
        let reason = format!("no cpu cgroup: {reason}; instead, the run is bound to whole processors");
        observed.push(LimitObservation::new(
            LimitName::Cpu,
            millicpus(limits),
            LimitMechanism::Affinity,
            None,
            Some(reason),
        ));
    }
    let plain = |name, value, mechanism| LimitObservation::new(name, value, mechanism, None, None);
    let core = rlimit::value(&rlimits, RlimitKind::Core).and_then(|value| value.soft);
    observed.push(plain(LimitName::Core, core.unwrap_or(u64::MAX), LimitMechanism::Rlimit));
    observed.push(plain(LimitName::Files, limits.open_files, LimitMechanism::Rlimit));
    let wall = u64::try_from(limits.wall.as_millis()).unwrap_or(u64::MAX);
    observed.push(LimitObservation::new(LimitName::Wall, wall, LimitMechanism::Watchdog, Some(wall), None));
    let (mechanism, reason) = match container {
        true => (LimitMechanism::Tmpfs, None),
        false => (
            LimitMechanism::None,
            Some(
                "a plain child writes to a directory of the host; checked when the directory is read"
                    .to_owned(),
            ),
        ),
    };
    for (name, value) in [
        (LimitName::Output, round_to_pages(limits.output_bytes)),
        (LimitName::OutputFiles, limits.output_files),
        (LimitName::Tmp, round_to_pages(limits.tmp_bytes)),
    ] {
        observed.push(LimitObservation::new(name, value, mechanism, None, reason.clone()));
    }
    Ok(Enforcement { observed, rlimits, observed_rlimits: Vec::new(), processors })
}

impl LimitMechanism {
    /// Whether the workload cannot exceed the limit. RLIMIT_DATA counts each process by itself, and a process can change its affinity.
    fn is_strict(self, name: LimitName) -> bool {
        match self {
            LimitMechanism::Cgroup | LimitMechanism::Watchdog | LimitMechanism::Tmpfs => true,
            // RLIMIT_NPROC counts the processes of the run's own user namespace.
            LimitMechanism::Rlimit => name != LimitName::Memory,
            LimitMechanism::Affinity | LimitMechanism::None => false,
        }
    }
}

impl Enforcement {
    /// The memory limit that the watchdog has to enforce, because no cgroup does.
    pub(crate) fn watchdog_limit(&self) -> Option<u64> {
        let watched = |limit: &&LimitObservation| {
            limit.name == LimitName::Memory
                && limit.mechanism != LimitMechanism::Cgroup
                && !procfs::hides_processes()
                && !hooks::off("memory limit")
        };
        self.observed.iter().find(watched).map(|limit| limit.requested)
    }

    /// Fails if a limit that the user requested is enforced only by a mechanism that the workload can evade.
    pub(crate) fn require(&self, limits: &Limits) -> Result<()> {
        let weak = |limit: &&LimitObservation| {
            !limit.mechanism.is_strict(limit.name) && limits.required.contains(&limit.name)
        };
        match self.observed.iter().find(weak) {
            None => Ok(()),
            Some(limit) => Err(Error::unsupported(format!(
                "the requested {} limit cannot be enforced: {}",
                limit.name,
                limit.reason.as_deref().unwrap_or_default()
            ))
            .in_control("limits")
            .with_hint(
                "run as root, or in a cgroup delegated to you (`systemd-run --user --scope -p Delegate=yes`), or do without the flag",
            )),
        }
    }

    /// The resource limits that the workload sets for itself.
    pub(crate) fn rlimits_to_set(&self) -> Vec<Rlimit> {
        self.rlimits.iter().filter(|limit| !limit.is_off()).copied().collect()
    }

    /// Reads back the limits of the waiting workload. `out` is the handle of its `/out`. Returns, for a container, a handle of its `/tmp`.
    pub(crate) fn read_back(&mut self, pid: i32, out: &OwnedFd) -> Result<Option<OwnedFd>> {
        self.read_rlimits(pid)?;
        if self.processors.is_some() {
            let set = rustix::thread::sched_getaffinity(Pid::from_raw(pid));
            let count = set.context("observing the workload's processors")?.count();
            self.record(LimitName::Cpu, u64::from(count) * 1000)?;
        }
        if self.observed.iter().all(|limit| limit.mechanism != LimitMechanism::Tmpfs) {
            return Ok(None);
        }
        let tmp = Root::of(pid)?.open("/tmp", OFlags::PATH | OFlags::DIRECTORY)?;
        let (output, scratch) = (Capacity::of(out)?, Capacity::of(&tmp)?);
        if scratch.files != TMP_INODES {
            limit_differs(LimitName::Tmp, TMP_INODES, &format!("{} files fit into it", scratch.files))?;
        }
        self.record(LimitName::Output, output.bytes)?;
        // One inode is the directory itself.
        self.record(LimitName::OutputFiles, output.files.saturating_sub(1))?;
        self.record(LimitName::Tmp, scratch.bytes)?;
        Ok(Some(tmp))
    }

    /// Records a value that was read back. It must equal the requested one, except that a machine may have fewer processors.
    fn record(&mut self, name: LimitName, effective: u64) -> Result<()> {
        let Some(limit) = self.observed.iter_mut().find(|limit| limit.name == name) else { return Ok(()) };
        let as_requested = match limit.mechanism {
            LimitMechanism::Affinity => effective <= limit.requested.div_ceil(1000).max(1) * 1000,
            _ => effective == limit.requested,
        };
        if !as_requested {
            limit_differs(name, limit.requested, &format!("{effective} was read back"))?;
        }
        limit.effective = Some(effective);
        Ok(())
    }

    fn read_rlimits(&mut self, pid: i32) -> Result<()> {
        let path = format!("/proc/{pid}/limits");
        let found = rlimit::parse(&procfs::read(&path).with_context(|| format!("observing {path}"))?)?;
        for (limit, found) in self.rlimits.iter().zip(&found) {
            let Some(name) = limit.kind.limit() else { continue };
            if limit != found {
                limit_differs(
                    name,
                    limit.value.soft.unwrap_or(u64::MAX),
                    &format!("{path} contains {:?}", found.value),
                )?;
            }
            if let Some(observed) = self.observed.iter_mut().find(|o| o.name == name)
                && observed.mechanism == LimitMechanism::Rlimit
            {
                observed.effective = limit.value.soft;
            }
        }
        self.observed_rlimits = found;
        Ok(())
    }
}

fn limit_differs(name: LimitName, requested: u64, observed: &str) -> Result<()> {
    if hooks::unchecked("limits") {
        return Ok(());
    }
    Err(differs("limits", format!("{name:?} was set to {requested}, but {observed}")))
}

/// The capacity of a tmpfs.
pub(crate) struct Capacity {
    bytes: u64,
    files: u64,
    pub(crate) used: u64,
    /// Whether no page, and whether no file more fits into it.
    pub(crate) full: (bool, bool),
}

impl Capacity {
    pub(crate) fn of(handle: &OwnedFd) -> Result<Self> {
        let found = rustix::fs::fstatvfs(handle).context("reading the capacity of a tmpfs of the run")?;
        Ok(Capacity {
            bytes: found.f_blocks * found.f_frsize,
            files: found.f_files,
            used: (found.f_blocks - found.f_bfree) * found.f_frsize,
            full: (found.f_bfree == 0 && found.f_blocks > 0, found.f_ffree == 0 && found.f_files > 0),
        })
    }
}
