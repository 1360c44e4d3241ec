//! What runs could leave on this machine: a look before, a look after, and the difference.
//!
//! Every process that a test starts, and whatever comes of it, ends up below the test: [`adopt_orphans`] makes it the parent of those whose
//! own is dead. So a process that outlives its run is found whatever it calls itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the kernel is given to take away what is dying.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is there of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Living processes below this one.
    pub processes: BTreeSet<String>,
    /// Mounts of this mount namespace.
    pub mounts: BTreeSet<String>,
    /// Cgroups of runs.
    pub cgroups: BTreeSet<String>,
    /// Files in state directories.
    pub states: BTreeSet<String>,
    /// What is in directories for temporary files.
    pub temporary: BTreeSet<String>,
}

/// Where to look besides the machine's own places.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// State directories of users.
    pub states: Vec<PathBuf>,
    /// Directories that should be empty of temporary files.
    pub temporary: Vec<PathBuf>,
}

/// Makes this process the parent of the orphans among its descendants.
pub fn adopt_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
}

impl Places {
    /// Looks at everything.
    pub fn look(&self) -> Look {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let states = self.states.iter().map(PathBuf::as_path).chain([Path::new("/run/invarlock")]);
        let hosts = names(Path::new("/tmp")).into_iter().filter(|n| n.starts_with("/tmp/invarlock-host-"));
        Look {
            processes: descendants(),
            mounts: mounts.lines().map(str::to_owned).collect(),
            cgroups: cgroups(),
            states: states.flat_map(names).collect(),
            temporary: self.temporary.iter().flat_map(|d| names(d)).chain(hosts).collect(),
        }
    }

    /// What is there now and was not `before`, as soon as that is nothing, at the latest when patience ends.
    pub fn left_since(&self, before: &Look) -> Look {
        self.settled(before, |left| *left == Look::default())
    }

    /// The same, waiting only for processes to be gone.
    pub fn left_without_processes(&self, before: &Look) -> Look {
        self.settled(before, |left| left.processes.is_empty())
    }

    fn settled(&self, before: &Look, enough: impl Fn(&Look) -> bool) -> Look {
        let start = Instant::now();
        loop {
            let left = self.look().without(before);
            if enough(&left) || start.elapsed() > PATIENCE {
                return left;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Look {
    fn without(self, before: &Look) -> Look {
        let minus = |now: BTreeSet<String>, before: &BTreeSet<String>| &now - before;
        Look {
            processes: minus(self.processes, &before.processes),
            mounts: minus(self.mounts, &before.mounts),
            cgroups: minus(self.cgroups, &before.cgroups),
            states: minus(self.states, &before.states),
            temporary: minus(self.temporary, &before.temporary),
        }
    }

    /// Name and content of each kind.
    pub fn rows(&self) -> [(&'static str, &BTreeSet<String>); 5] {
        [
            ("processes", &self.processes),
            ("mounts", &self.mounts),
            ("cgroups", &self.cgroups),
            ("state files", &self.states),
            ("temporary directories", &self.temporary),
        ]
    }

    /// Fails the test where there is anything.
    #[track_caller]
    pub fn is_nothing(&self, after: &str) {
        assert_eq!(*self, Look::default(), "left behind after {after}");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.path().display().to_string()).collect()
}

/// Living processes below this one. The dead among its own children are reaped.
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

/// Directories of runs in every hierarchy.
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
