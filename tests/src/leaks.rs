//! Detects what runs leave on the machine: a snapshot before, a snapshot after, and the difference.
//!
//! [`adopt_orphans`] makes the test the parent of orphaned descendants. Every process that a test
//! starts therefore stays below the test, and a process that outlives its run is found under any
//! name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait for the kernel to remove dying processes and mounts.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A snapshot of everything that a run could leave behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Living processes below this one.
    pub processes: BTreeSet<String>,
    /// Mounts of this mount namespace.
    pub mounts: BTreeSet<String>,
    /// Cgroups of runs.
    pub cgroups: BTreeSet<String>,
    /// Files in state directories.
    pub states: BTreeSet<String>,
    /// Entries of directories for temporary files.
    pub temporary: BTreeSet<String>,
}

/// Directories that a snapshot includes besides the system's.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// State directories of users.
    pub states: Vec<PathBuf>,
    /// Directories that must have no temporary files.
    pub temporary: Vec<PathBuf>,
}

/// Makes this process the parent of orphans among its descendants (`PR_SET_CHILD_SUBREAPER`).
pub fn adopt_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
}

impl Places {
    /// Takes a snapshot.
    pub fn snapshot(&self) -> Snapshot {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let states = self.states.iter().map(PathBuf::as_path).chain([Path::new("/run/invarlock")]);
        let host_runs =
            names(Path::new("/tmp")).into_iter().filter(|n| n.starts_with("/tmp/invarlock-host-"));
        Snapshot {
            processes: descendants(),
            mounts: mounts.lines().map(str::to_owned).collect(),
            cgroups: cgroups(),
            states: states.flat_map(states_in).collect(),
            temporary: self.temporary.iter().flat_map(|d| names(d)).chain(host_runs).collect(),
        }
    }

    /// What exists now and did not exist `before`. Waits up to 10 s until nothing is left.
    pub fn left_since(&self, before: &Snapshot) -> Snapshot {
        self.wait_until(before, |left| *left == Snapshot::default())
    }

    /// The same, but waits only until the processes have ended.
    pub fn left_without_processes(&self, before: &Snapshot) -> Snapshot {
        self.wait_until(before, |left| left.processes.is_empty())
    }

    fn wait_until(&self, before: &Snapshot, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let start = Instant::now();
        loop {
            let left = self.snapshot().without(before);
            if done(&left) || start.elapsed() > SETTLE_TIMEOUT {
                return left;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Snapshot {
    fn without(self, before: &Snapshot) -> Snapshot {
        let difference = |now: BTreeSet<String>, before: &BTreeSet<String>| &now - before;
        Snapshot {
            processes: difference(self.processes, &before.processes),
            mounts: difference(self.mounts, &before.mounts),
            cgroups: difference(self.cgroups, &before.cgroups),
            states: difference(self.states, &before.states),
            temporary: difference(self.temporary, &before.temporary),
        }
    }

    /// The name and the entries of each kind of leftover.
    pub fn kinds(&self) -> [(&'static str, &BTreeSet<String>); 5] {
        [
            ("processes", &self.processes),
            ("mounts", &self.mounts),
            ("cgroups", &self.cgroups),
            ("state files", &self.states),
            ("temporary directories", &self.temporary),
        ]
    }

    /// Fails the test unless the snapshot is empty.
    #[track_caller]
    pub fn is_nothing(&self, after: &str) {
        assert_eq!(*self, Snapshot::default(), "left behind after {after}");
    }
}

/// The entries of a state directory. The directory of running commands stays; the files of commands in it do not.
fn states_in(dir: &Path) -> Vec<String> {
    let (running, states): (Vec<_>, Vec<_>) =
        names(dir).into_iter().partition(|name| name.ends_with("/running"));
    let commands =
        running.iter().flat_map(|dir| names(Path::new(dir))).filter(|name| name.ends_with(".json"));
    states.into_iter().chain(commands).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.path().display().to_string()).collect()
}

/// Living descendants of this process. Dead children are reaped.
fn descendants() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut queue = vec![std::process::id()];
    while let Some(parent) = queue.pop() {
        for pid in children(parent) {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let (name, rest) = stat.rsplit_once(')').unwrap_or_default();
            if rest.trim_start().starts_with('Z') {
                if parent == std::process::id() {
                    let pid = rustix::process::Pid::from_raw(pid as i32);
                    _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::NOHANG);
                }
            } else if !rest.is_empty() {
                found.insert(format!("{name})"));
                queue.push(pid);
            }
        }
    }
    found
}

/// The children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Cgroup directories of runs in every hierarchy.
fn cgroups() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut queue = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = queue.pop() {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            if entry.file_name().to_string_lossy().starts_with("invarlock-") {
                found.insert(entry.path().display().to_string());
            }
            queue.push(entry.path());
        }
    }
    found
}
