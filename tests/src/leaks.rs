//! Detects what runs leave on the machine: a snapshot before, a snapshot after, and the difference.
//!
//! Every process that a test starts, and every descendant, stays below the test, because [`adopt_orphans`] makes the test the parent of
//! orphans. So a process that outlives its run is found whatever its name is.

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

/// Directories to look in besides the system's.
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
        let hosts = names(Path::new("/tmp")).into_iter().filter(|n| n.starts_with("/tmp/invarlock-host-"));
        Snapshot {
            processes: descendants(),
            mounts: mounts.lines().map(str::to_owned).collect(),
            cgroups: cgroups(),
            states: states.flat_map(names).collect(),
            temporary: self.temporary.iter().flat_map(|d| names(d)).chain(hosts).collect(),
        }
    }

    /// What exists now and did not exist `before`. Waits until that is nothing, at most 10 s.
    pub fn left_since(&self, before: &Snapshot) -> Snapshot {
        self.settled(before, |left| *left == Snapshot::default())
    }

    /// The same, waiting only for processes to end.
    pub fn left_without_processes(&self, before: &Snapshot) -> Snapshot {
        self.settled(before, |left| left.processes.is_empty())
    }

    fn settled(&self, before: &Snapshot, enough: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let start = Instant::now();
        loop {
            let left = self.snapshot().without(before);
            if enough(&left) || start.elapsed() > SETTLE_TIMEOUT {
                return left;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Snapshot {
    fn without(self, before: &Snapshot) -> Snapshot {
        let minus = |now: BTreeSet<String>, before: &BTreeSet<String>| &now - before;
        Snapshot {
            processes: minus(self.processes, &before.processes),
            mounts: minus(self.mounts, &before.mounts),
            cgroups: minus(self.cgroups, &before.cgroups),
            states: minus(self.states, &before.states),
            temporary: minus(self.temporary, &before.temporary),
        }
    }

    /// Name and entries of each kind.
    pub fn rows(&self) -> [(&'static str, &BTreeSet<String>); 5] {
        [
            ("processes", &self.processes),
            ("mounts", &self.mounts),
            ("cgroups", &self.cgroups),
            ("state files", &self.states),
            ("temporary directories", &self.temporary),
        ]
    }

    /// Fails the test if there is anything.
    #[track_caller]
    pub fn is_nothing(&self, after: &str) {
        assert_eq!(*self, Snapshot::default(), "left behind after {after}");
    }
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
