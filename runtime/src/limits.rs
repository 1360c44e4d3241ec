//! Which means holds which limit: the run's cgroup where there is one, else what the kernel offers each process.

use crate::cgroup::{Controller, RunCgroup, millicpus, round_to_pages};
use crate::observe::{By, LimitRow, Root};
use crate::spec::{LimitName, Limits};
use crate::supervisor::is_blind;
use crate::{hooks, kernel};
use invarlock_error::{Context as _, Error, Result};
use rustix::fs::OFlags;
use rustix::process::{Pid, Resource};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

/// One resource limit, soft and hard, and which limit of the run it holds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Rlimit {
    pub(crate) kind: RlimitKind,
    pub(crate) value: u64,
}

/// The resource limits that a run uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RlimitKind {
    Core,
    Nofile,
    Data,
    Nproc,
}

impl RlimitKind {
    pub(crate) fn resource(self) -> Resource {
        match self {
            Self::Core => Resource::Core,
            Self::Nofile => Resource::Nofile,
            Self::Data => Resource::Data,
            Self::Nproc => Resource::Nproc,
        }
    }

    fn name(self) -> LimitName {
        match self {
            Self::Core => LimitName::Core,
            Self::Nofile => LimitName::Files,
            Self::Data => LimitName::Memory,
            Self::Nproc => LimitName::Pids,
        }
    }

    /// As `/proc/<pid>/limits` calls it.
    fn label(self) -> &'static str {
        match self {
            Self::Core => "Max core file size",
            Self::Nofile => "Max open files",
            Self::Data => "Max data size",
            Self::Nproc => "Max processes",
        }
    }
}

/// How the limits of a run are held.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) rows: Vec<LimitRow>,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) processors: Option<usize>,
}

impl Rlimit {
    /// Whether a test leaves it out.
    fn is_off(&self) -> bool {
        match self.kind.name() {
            LimitName::Memory => hooks::off("memory limit"),
            LimitName::Pids => hooks::off("pids limit"),
            LimitName::Files => hooks::off("open files limit"),
            _ => hooks::off("core limit"),
        }
    }
}

/// Sets what the cgroup can hold and plans the rest. `container`: whether `/out` and `/tmp` are tmpfs of the run.
pub(crate) fn hold(limits: &Limits, cgroup: &RunCgroup, container: bool) -> Result<Holding> {
    let mut rows = cgroup.limit(limits)?;
    let mut rlimits = vec![
        Rlimit { kind: RlimitKind::Core, value: 0 },
        Rlimit { kind: RlimitKind::Nofile, value: limits.open_files },
    ];
    let mut processors = None;
    if let Some(reason) = cgroup.missing(Controller::Memory) {
        // Not RLIMIT_AS: read-only mappings of weights count there, and not here.
        let sum = match is_blind() {
            false => "a watchdog looks at the sum",
            true => "nobody looks at the sum, because /proc hides processes from you (hidepid)",
        };
        let reason = format!("of each process, mapped files apart, and {sum}; no memory cgroup: {reason}");
        rlimits.push(Rlimit { kind: RlimitKind::Data, value: limits.memory_bytes });
        rows.push(LimitRow::new(LimitName::Memory, limits.memory_bytes, By::Rlimit, None, Some(reason)));
    }
    if let Some(reason) = cgroup.missing(Controller::Pids) {
        if container {
            let reason = format!("of the run's user in its namespace; no pids cgroup: {reason}");
            rlimits.push(Rlimit { kind: RlimitKind::Nproc, value: limits.pids });
            rows.push(LimitRow::new(LimitName::Pids, limits.pids, By::Rlimit, None, Some(reason)));
        } else {
            rows.push(LimitRow::new(LimitName::Pids, limits.pids, By::None, None, Some(reason.to_owned())));
        }
    }
    if let Some(reason) = cgroup.missing(Controller::Cpu) {
        let count = (limits.cpus.ceil() as usize).max(1);
        processors = Some(count);
        let reason = format!("whole processors; no cpu cgroup: {reason}");
        rows.push(LimitRow::new(LimitName::Cpu, millicpus(limits), By::Affinity, None, Some(reason)));
    }
    let plain = |name, value, by| LimitRow::new(name, value, by, None, None);
    rows.push(plain(LimitName::Core, 0, By::Rlimit));
    rows.push(plain(LimitName::Files, limits.open_files, By::Rlimit));
    let wall = u64::try_from(limits.wall.as_millis()).unwrap_or(u64::MAX);
    rows.push(LimitRow::new(LimitName::Wall, wall, By::Watchdog, Some(wall), None));
    let (by, reason) = match container {
        true => (By::Tmpfs, None),
        false => (
            By::None,
            Some("a plain child writes to a directory of the host; checked when it is read".to_owned()),
        ),
    };
    for (name, value) in [
        (LimitName::Output, round_to_pages(limits.output_bytes)),
        (LimitName::OutputFiles, limits.output_files),
        (LimitName::Tmp, round_to_pages(limits.tmp_bytes)),
    ] {
        rows.push(LimitRow::new(name, value, by, None, reason.clone()));
    }
    // No process may raise its own hard limit: where that is lower, it stays.
    for limit in &mut rlimits {
        limit.value =
            limit.value.min(rustix::process::getrlimit(limit.kind.resource()).maximum.unwrap_or(u64::MAX));
    }
    Ok(Holding { rows, rlimits, processors })
}

impl By {
    /// Whether a workload that wants more than its limit does not get it. The others only make it difficult: RLIMIT_DATA counts each
    /// process by itself, and a process may choose its processors anew.
    fn holds(self, name: LimitName) -> bool {
        match self {
            By::Cgroup | By::Watchdog | By::Tmpfs => true,
            // Processes are counted in the run's own user namespace.
            By::Rlimit => name != LimitName::Memory,
            By::Affinity | By::None => false,
        }
    }
}

impl Holding {
    /// Bytes that the supervisor has to watch over, since no cgroup does.
    pub(crate) fn watched(&self) -> Option<u64> {
        let watched = |row: &&LimitRow| {
            row.name == LimitName::Memory
                && row.by != By::Cgroup
                && !is_blind()
                && !hooks::off("memory limit")
        };
        let row = self.rows.iter().find(watched);
        row.map(|row| row.asked)
    }

    /// A limit that the caller insists on must be held by the means it thinks of, not by a makeshift.
    pub(crate) fn insist(&self, limits: &Limits) -> Result<()> {
        let weak = |row: &&LimitRow| !row.by.holds(row.name) && limits.required.contains(&row.name);
        match self.rows.iter().find(weak) {
            None => Ok(()),
            Some(row) => Err(Error::unsupported(format!(
                "row \"limits\": the {:?} limit was asked for and cannot be held: {}; run as root, or in a cgroup delegated to you \
                 (`systemd-run --user --scope -p Delegate=yes`), or do without the flag",
                row.name,
                row.reason.as_deref().unwrap_or_default()
            ))),
        }
    }

    /// The resource limits that the workload sets itself.
    pub(crate) fn to_set(&self) -> Vec<Rlimit> {
        self.rlimits.iter().filter(|limit| !limit.is_off()).copied().collect()
    }

    /// Reads back what holds the limits of the waiting workload. In a container, `out` is its `/out`; gives a handle of its `/tmp`.
    pub(crate) fn read_back(&mut self, pid: i32, out: Option<&OwnedFd>) -> Result<Option<OwnedFd>> {
        self.read_rlimits(pid)?;
        if self.processors.is_some() {
            let set = rustix::thread::sched_getaffinity(Pid::from_raw(pid));
            let count = set.context("observing the workload's processors")?.count();
            self.found(LimitName::Cpu, u64::from(count) * 1000)?;
        }
        if self.rows.iter().all(|row| row.by != By::Tmpfs) {
            return Ok(None);
        }
        let out = out.ok_or_else(|| Error::system("the run has no handle of its /out"))?;
        let tmp = Root::of(pid)?.open("/tmp", OFlags::PATH | OFlags::DIRECTORY)?;
        let (output, scratch) = (Room::of(out)?, Room::of(&tmp)?);
        if scratch.files != crate::rootfs::TMP_INODES {
            differs(LimitName::Tmp, crate::rootfs::TMP_INODES, &format!("{} files fit in", scratch.files))?;
        }
        self.found(LimitName::Output, output.bytes)?;
        // One is the directory's own.
        self.found(LimitName::OutputFiles, output.files.saturating_sub(1))?;
        self.found(LimitName::Tmp, scratch.bytes)?;
        Ok(Some(tmp))
    }

    /// Writes down what was read back. A tmpfs is exactly what it was made; where the machine has fewer processors, fewer were given.
    fn found(&mut self, name: LimitName, effective: u64) -> Result<()> {
        let Some(row) = self.rows.iter_mut().find(|r| r.name == name) else { return Ok(()) };
        let good = match row.by {
            By::Affinity => effective <= row.asked.div_ceil(1000).max(1) * 1000,
            _ => effective == row.asked,
        };
        if !good {
            differs(name, row.asked, &format!("{effective} was read back"))?;
        }
        row.effective = Some(effective);
        Ok(())
    }

    fn read_rlimits(&mut self, pid: i32) -> Result<()> {
        let path = format!("/proc/{pid}/limits");
        let text = kernel::read(&path).with_context(|| format!("observing {path}"))?;
        for limit in &self.rlimits {
            let line = text.lines().find_map(|l| l.strip_prefix(limit.kind.label())).unwrap_or_default();
            let found: Vec<Option<u64>> = line.split_whitespace().take(2).map(|n| n.parse().ok()).collect();
            if found != [Some(limit.value); 2] {
                differs(limit.kind.name(), limit.value, &format!("{path} says {}", line.trim()))?;
            }
            if let Some(row) = self.rows.iter_mut().find(|r| r.name == limit.kind.name()) {
                row.effective = Some(limit.value);
            }
        }
        Ok(())
    }
}

fn differs(name: LimitName, asked: u64, found: &str) -> Result<()> {
    if hooks::unseen("limits") {
        return Ok(());
    }
    Err(Error::integrity(format!(
        "the boundary is not what was asked for: row \"limits\": {name:?} was set to {asked}, but {found}; the workload was not started"
    )))
}

/// What a tmpfs holds at most, and what of it is left.
pub(crate) struct Room {
    bytes: u64,
    files: u64,
    pub(crate) used: u64,
    /// Neither a page nor a file more fits in.
    pub(crate) full: (bool, bool),
}

impl Room {
    pub(crate) fn of(handle: &OwnedFd) -> Result<Self> {
        let found = rustix::fs::fstatvfs(handle).context("looking at a tmpfs of the run")?;
        Ok(Room {
            bytes: found.f_blocks * found.f_frsize,
            files: found.f_files,
            used: (found.f_blocks - found.f_bfree) * found.f_frsize,
            full: (found.f_bfree == 0 && found.f_blocks > 0, found.f_ffree == 0 && found.f_files > 0),
        })
    }
}
