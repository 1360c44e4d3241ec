//! Which means holds which limit: the run's cgroup where there is one, else what the kernel offers each process.

use crate::cgroup::{Controller, RunCgroup, millicpus};
use crate::error::{Doing as _, Error, Result};
use crate::hooks;
use crate::observe::{By, LimitRow};
use crate::spec::{LimitName, Limits};
use rustix::process::Resource;
use serde::{Deserialize, Serialize};
use std::fs;

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
    // No process may raise its own hard limit: where that is lower, it stays.
    for limit in &mut rlimits {
        limit.value =
            limit.value.min(rustix::process::getrlimit(limit.kind.resource()).maximum.unwrap_or(u64::MAX));
    }
    let mut processors = None;
    if let Some(reason) = cgroup.missing(Controller::Memory) {
        // Not RLIMIT_AS: read-only mappings of weights count there, and not here.
        let reason = format!("of each process, mapped files apart; no memory cgroup: {reason}");
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
        rows.push(LimitRow::new(
            LimitName::Cpu,
            millicpus(limits),
            By::Affinity,
            Some(count as u64 * 1000),
            Some(reason),
        ));
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
        (LimitName::Output, limits.output_bytes),
        (LimitName::OutputFiles, limits.output_files),
        (LimitName::Tmp, limits.tmp_bytes),
    ] {
        rows.push(LimitRow::new(name, value, by, container.then_some(value), reason.clone()));
    }
    Ok(Holding { rows, rlimits, processors })
}

impl Holding {
    /// A limit that the caller insists on must be held by the means it thinks of, not by a makeshift.
    pub(crate) fn insist(&self, limits: &Limits) -> Result<()> {
        let weak = |row: &&LimitRow| row.reason.is_some() && limits.required.contains(&row.name);
        match self.rows.iter().find(weak) {
            None => Ok(()),
            Some(row) => Err(Error::Unsupported(format!(
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

    /// Reads back what the waiting workload has: its resource limits, its processors, and the room in its two writable directories.
    pub(crate) fn read_back(&mut self, pid: i32) -> Result<()> {
        let path = format!("/proc/{pid}/limits");
        let text = fs::read_to_string(&path).doing(|| format!("observing {path}"))?;
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
        if let Some(count) = self.processors {
            let pid = rustix::process::Pid::from_raw(pid);
            let set = rustix::thread::sched_getaffinity(pid).doing(|| "observing the processors".into())?;
            if set.count() as usize > count {
                differs(LimitName::Cpu, count as u64, &format!("it may use {} processors", set.count()))?;
            }
        }
        for row in self.rows.iter_mut().filter(|row| row.by == By::Tmpfs) {
            let directory = if row.name == LimitName::Tmp { "tmp" } else { "out" };
            let path = format!("/proc/{pid}/root/{directory}");
            let room = rustix::fs::statvfs(&path).doing(|| format!("observing {path}"))?;
            let page = rustix::param::page_size() as u64;
            let (found, least) = match row.name {
                // One inode is the directory's.
                LimitName::OutputFiles => (room.f_files.saturating_sub(1), row.asked),
                // Whole pages.
                _ => (room.f_blocks * room.f_bsize, row.asked.next_multiple_of(page)),
            };
            if found != least {
                differs(row.name, row.asked, &format!("{path} has room for {found}"))?;
            }
            row.effective = Some(found);
        }
        Ok(())
    }
}

fn differs(name: LimitName, asked: u64, found: &str) -> Result<()> {
    if hooks::unseen("limits") {
        return Ok(());
    }
    Err(Error::Integrity(format!(
        "the boundary is not what was asked for: row \"limits\": {name:?} was set to {asked}, but {found}; the workload was not started"
    )))
}
