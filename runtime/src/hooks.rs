//! The steps of a run: when each was reached, and, in debug builds, what tests need from inside: dying at a chosen step, and leaving one
//! control of the boundary out. In a release build no variable is read.
//!
//! The launcher reads the two variables once and hands them to its supervisor, whose copies inherit them. The times are kept in memory
//! that the supervisor shares with its copies up to the workload's first instruction.

use crate::error::{Doing as _, Result};
use crate::sys::{self, SharedWords};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The steps of every run, each named after the process that reaches it.
pub const EVERY_RUN: [&str; 22] = [
    "launcher: supervisor started",
    "launcher: run handed over",
    "launcher: outcome received",
    "supervisor: started",
    "supervisor: lock file made",
    "supervisor: lock file written",
    "supervisor: lock taken",
    "supervisor: first cgroup tried",
    "supervisor: cgroup made",
    "supervisor: request received",
    "supervisor: limits set",
    "supervisor: handles prepared",
    "supervisor: workload waits",
    "supervisor: observed",
    "supervisor: workload started",
    "supervisor: workload ended",
    "supervisor: all dead",
    "supervisor: output collected",
    "supervisor: cgroup removed",
    "supervisor: lock released",
    "init: workload forked",
    "init: workload ended",
];

/// The further steps of a container.
pub const CONTAINER: [&str; 15] = [
    "supervisor: builder cloned",
    "supervisor: output handle received",
    "builder: started",
    "builder: cgroup entered",
    "builder: namespaces made",
    "builder: tree prepared",
    "builder: told what to build",
    "builder: mounts made",
    "builder: host left",
    "builder: root assembled",
    "builder: output handed over",
    "builder: configuration made",
    "init: file system there",
    "init: boundary finished",
    "init: ready said",
];

/// The further steps of host execution.
pub const HOST: [&str; 4] = [
    "supervisor: program's parent forked",
    "init: host started",
    "init: host cgroup entered",
    "init: host ready said",
];

/// The workload's last step as a copy of us.
pub const WORKLOAD: [&str; 1] = ["workload: given up everything"];

/// The steps of the program around a run, which makes its files appear whole or not at all.
pub const FILES: [&str; 8] = [
    "files: run directory begun",
    "files: run directory filled",
    "files: run directory named",
    "files: evidence staged",
    "files: old manifest removed",
    "files: report named",
    "files: manifest named",
    "files: evidence synced",
];

/// A control of the boundary that a test can leave out.
#[cfg(debug_assertions)]
#[derive(Debug)]
pub struct Control {
    /// Its name, for `INVARLOCK_TEST_WITHOUT`.
    pub name: &'static str,
    /// Rows of the observations that betray its absence, so that the workload is not started. None where the kernel shows it to nobody
    /// outside before the workload's first instruction.
    pub observed: &'static [&'static str],
    /// The attacks of the probe that then succeed in a run started by root.
    pub root: &'static [&'static str],
    /// The attacks that then succeed in a run started by a user. Where either is empty, another control holds the same row there.
    pub user: &'static [&'static str],
}

#[cfg(debug_assertions)]
const fn control(
    name: &'static str,
    observed: &'static [&'static str],
    root: &'static [&'static str],
    user: &'static [&'static str],
) -> Control {
    Control { name, observed, root, user }
}

/// Every control that the boundary can be built without. Not among them: user and mount namespace, since the kernel lets nobody make the
/// rest without them, and `no_new_privs`, without which it takes no filter.
#[cfg(debug_assertions)]
pub const CONTROLS: &[Control] = &[
    control("pid namespace", &["namespaces"], &["ns-pid"], &["ns-pid"]),
    control(
        "network namespace",
        &["namespaces", "interfaces", "routes"],
        &["ns-net", "interfaces", "routes"],
        &["ns-net", "interfaces", "routes"],
    ),
    control("ipc namespace", &["namespaces"], &["ns-ipc"], &["ns-ipc"]),
    control("uts namespace", &["namespaces"], &["ns-uts", "hostname"], &["ns-uts", "hostname"]),
    control(
        "cgroup namespace",
        &["namespaces"],
        &["ns-cgroup", "cgroup-path"],
        &["ns-cgroup", "cgroup-path"],
    ),
    control("supplementary groups", &["identity"], &["groups"], &[]),
    control(
        "workload id",
        &["identity", "capabilities"],
        &[
            "host-id",
            "inside-id",
            "set-uid-program",
            "output-run",
            "output-fill",
            "output-link",
            "output-fifo",
            "output-device",
        ],
        &[],
    ),
    control("setgroups", &["id_maps"], &["setgroups-file"], &[]),
    control("capabilities", &["capabilities"], &[], &["before"]),
    control("bounding set", &["capabilities"], &["before", "bounding"], &["before", "bounding"]),
    control("secure bits", &[], &["secure-bits"], &["secure-bits"]),
    control(
        "filter",
        &["seccomp"],
        &[
            "filter-mode",
            "unshare-user",
            "clone-user",
            "clone3",
            "setns",
            "keyctl",
            "add-key",
            "ptrace-me",
            "personality",
            "tiocsti",
        ],
        &[
            "filter-mode",
            "unshare-user",
            "clone-user",
            "clone3",
            "setns",
            "keyctl",
            "add-key",
            "ptrace-me",
            "personality",
            "tiocsti",
        ],
    ),
    control(
        "root read-only",
        &["mounts"],
        &["root-create", "root-overwrite", "root-flags", "canary"],
        &["root-create", "root-overwrite", "root-flags", "canary"],
    ),
    control("root nosuid", &["mounts"], &["root-flags"], &["root-flags"]),
    control("root nodev", &["mounts"], &["root-flags"], &["root-flags"]),
    control(
        "inputs read-only",
        &["mounts"],
        &["input-overwrite", "input-flags", "inputs-flags"],
        &["input-overwrite", "input-create", "input-flags", "inputs-flags"],
    ),
    control("inputs nosuid", &["mounts"], &["input-flags"], &["input-flags"]),
    control("inputs nodev", &["mounts"], &["input-flags"], &["input-flags"]),
    control("inputs noexec", &["mounts"], &["input-run", "input-flags"], &["input-run", "input-flags"]),
    control(
        "scratch nosuid",
        &["mounts"],
        &["output-flags", "scratch-flags"],
        &["output-flags", "scratch-flags"],
    ),
    control(
        "scratch nodev",
        &["mounts"],
        &["output-flags", "scratch-flags"],
        &["output-flags", "scratch-flags"],
    ),
    control(
        "scratch noexec",
        &["mounts"],
        &["output-run", "output-flags", "scratch-run", "scratch-flags"],
        &["output-run", "output-flags", "scratch-run", "scratch-flags"],
    ),
    control("scratch size", &["limits"], &["scratch-fill"], &["scratch-fill"]),
    control("scratch inodes", &["limits"], &["scratch-files"], &["scratch-files"]),
    control("output size", &["limits"], &["output-fill"], &["output-fill"]),
    control("output inodes", &["limits"], &["output-files"], &["output-files"]),
    control("output regular files", &[], &["output-link", "output-fifo"], &["output-link", "output-fifo"]),
    control("five devices", &["mounts", "devices"], &["devices"], &["devices"]),
    control("closed /dev", &["mounts"], &["dev-flags"], &["dev-create", "dev-flags"]),
    control("masked paths", &["mounts"], &["masks"], &["masks"]),
    control("read-only paths", &["mounts"], &["closed-paths"], &["closed-paths"]),
    control("init not dumpable", &[], &[], &["init-environ", "init-memory", "init-program", "init-root"]),
    control("descriptors", &["descriptors"], &["descriptors"], &["descriptors"]),
    control("environment", &[], &["environment"], &["environment"]),
    control("memory limit", &["limits"], &["memory"], &["memory"]),
    control("pids limit", &["limits"], &["processes-limit"], &["processes-limit"]),
    control("cpu limit", &["limits"], &["processors"], &["processors"]),
    control("open files limit", &["limits"], &["open-files"], &["open-files"]),
    control("core limit", &["limits"], &["core"], &["core"]),
    control("wall limit", &[], &["time"], &["time"]),
];
const STEPS: usize = EVERY_RUN.len() + CONTAINER.len() + HOST.len() + WORKLOAD.len();

/// The steps that have a time.
fn timed() -> impl Iterator<Item = &'static str> {
    EVERY_RUN.into_iter().chain(CONTAINER).chain(HOST).chain(WORKLOAD)
}

/// When this process reached its steps, nanoseconds of the monotonic clock, 0: not.
static OWN: [AtomicU64; STEPS] = [const { AtomicU64::new(0) }; STEPS];
/// The same of the supervisor and its copies.
static SHARED: OnceLock<SharedWords> = OnceLock::new();
/// When the launcher's `main` began.
static START: AtomicU64 = AtomicU64::new(0);

fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn times() -> &'static [AtomicU64] {
    SHARED.get().map_or(&OWN, |shared| shared.words())
}

/// The launcher has begun.
pub(crate) fn start() {
    START.store(now(), Ordering::Relaxed);
}

/// From here on the times of this process and of its copies are kept in one place.
pub(crate) fn share_timeline() -> Result<()> {
    let words = sys::shared_words(STEPS).doing(|| "sharing memory".into())?;
    _ = SHARED.set(words);
    Ok(())
}

/// The steps that have been reached, and when.
pub(crate) fn timeline() -> Vec<(String, u64)> {
    let reached = |(name, time): (&str, &AtomicU64)| match time.load(Ordering::Relaxed) {
        0 => None,
        time => Some((name.to_owned(), time)),
    };
    timed().zip(times()).filter_map(reached).collect()
}

/// In their order, as microseconds since the launcher began.
pub(crate) fn since_start(mut timings: Vec<(String, u64)>) -> Vec<(String, u64)> {
    let start = START.load(Ordering::Relaxed);
    timings.sort_by_key(|(_, time)| *time);
    timings.into_iter().map(|(name, time)| (name, time.saturating_sub(start) / 1000)).collect()
}

/// A point of a run; in a debug build, one at which a test may have the power cut.
pub fn step(name: &'static str) {
    if let Some((_, time)) = timed().zip(times()).find(|(step, _)| *step == name) {
        time.store(now(), Ordering::Relaxed);
    } else {
        debug_assert!(FILES.contains(&name), "step {name:?} is in no list, so no test cuts it");
    }
    active::cut(name);
}

/// What a test asked for. Empty in a release build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// The step at which the process that reaches it kills itself.
    kill_at: Option<String>,
    /// The control that is left out.
    without: Option<String>,
    /// Whether what the supervisor sees of that is not compared with the plan either, so that the workload starts.
    unseen: bool,
}

#[cfg(debug_assertions)]
mod active {
    use super::{CONTROLS, Control, Hooks};
    use std::sync::OnceLock;

    static HOOKS: OnceLock<Hooks> = OnceLock::new();

    impl Hooks {
        /// From `INVARLOCK_TEST_KILL_AT` and `INVARLOCK_TEST_WITHOUT`.
        pub(crate) fn from_environment() -> Self {
            let variable = |name| std::env::var(name).ok();
            Hooks {
                kill_at: variable("INVARLOCK_TEST_KILL_AT"),
                without: variable("INVARLOCK_TEST_WITHOUT"),
                unseen: variable("INVARLOCK_TEST_UNSEEN").is_some(),
            }
        }

        /// For this process and all that are copied from it.
        pub(crate) fn set(self) {
            _ = HOOKS.set(self);
        }
    }

    pub(super) fn cut(name: &'static str) {
        if HOOKS.get_or_init(Hooks::from_environment).kill_at.as_deref() == Some(name) {
            _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            // Where a filter is on that refuses kill(2).
            std::process::abort();
        }
    }

    /// Whether a test wants this control left out.
    pub(crate) fn off(control: &'static str) -> bool {
        assert!(
            CONTROLS.iter().any(|c| c.name == control),
            "control {control:?} is not listed, so no test leaves it out"
        );
        HOOKS.get_or_init(Hooks::from_environment).without.as_deref() == Some(control)
    }

    /// Whether a test wants this row of the observations not to be compared, because the control it would betray is left out.
    pub(crate) fn unseen(row: &str) -> bool {
        let hooks = HOOKS.get_or_init(Hooks::from_environment);
        let left_out = |c: &&Control| hooks.without.as_deref() == Some(c.name);
        hooks.unseen && CONTROLS.iter().find(left_out).is_some_and(|c| c.observed.contains(&row))
    }
}

#[cfg(not(debug_assertions))]
mod active {
    use super::Hooks;

    impl Hooks {
        pub(crate) fn from_environment() -> Self {
            Hooks::default()
        }

        pub(crate) fn set(self) {}
    }

    pub(super) fn cut(_: &'static str) {}

    pub(crate) fn off(_: &'static str) -> bool {
        false
    }

    pub(crate) fn unseen(_: &str) -> bool {
        false
    }
}

pub(crate) use active::{off, unseen};
