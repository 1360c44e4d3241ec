//! What tests need from inside: dying at a chosen step, and leaving one control of the boundary out. Debug builds only; in a release
//! build every function here is empty and no variable is read.
//!
//! The launcher reads the two variables once and hands them to its supervisor, whose copies inherit them.

use serde::{Deserialize, Serialize};

/// The steps of every run, each named after the process that dies there.
#[cfg(debug_assertions)]
pub const EVERY_RUN: [&str; 23] = [
    "launcher: supervisor started",
    "launcher: run handed over",
    "launcher: outcome received",
    "supervisor: request received",
    "supervisor: lock file made",
    "supervisor: lock file written",
    "supervisor: lock taken",
    "supervisor: first cgroup tried",
    "supervisor: cgroup made",
    "supervisor: limits set",
    "supervisor: handles prepared",
    "supervisor: builder forked",
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
    "workload: given up everything",
];

/// The further steps of a container.
#[cfg(debug_assertions)]
pub const CONTAINER: [&str; 14] = [
    "supervisor: output handle received",
    "builder: started",
    "builder: cgroup entered",
    "builder: namespaces made",
    "builder: mounts made",
    "builder: host left",
    "builder: root assembled",
    "builder: output handed over",
    "builder: configuration written",
    "builder: container made",
    "init: file system there",
    "init: boundary finished",
    "init: ready said",
    "init: told to start",
];

/// The further steps of host execution.
#[cfg(debug_assertions)]
pub const HOST: [&str; 3] =
    ["builder: host started", "builder: host cgroup entered", "builder: host ready said"];

/// The steps of the program around a run, which makes its files appear whole or not at all.
#[cfg(debug_assertions)]
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
    control("pid namespace", &["namespaces"], &[], &[]),
    control("network namespace", &["namespaces", "interfaces", "routes"], &[], &[]),
    control("ipc namespace", &["namespaces"], &[], &[]),
    control("uts namespace", &["namespaces"], &[], &[]),
    control("cgroup namespace", &["namespaces"], &[], &[]),
    control("supplementary groups", &["identity"], &[], &[]),
    control("workload id", &["identity", "capabilities"], &[], &[]),
    control("setgroups", &["id_maps"], &[], &[]),
    control("capabilities", &["capabilities"], &[], &[]),
    control("bounding set", &["capabilities"], &[], &[]),
    control("secure bits", &[], &[], &[]),
    control("filter", &["seccomp"], &[], &[]),
    control("root read-only", &["mounts"], &[], &[]),
    control("root nosuid", &["mounts"], &[], &[]),
    control("root nodev", &["mounts"], &[], &[]),
    control("inputs read-only", &["mounts"], &[], &[]),
    control("inputs nosuid", &["mounts"], &[], &[]),
    control("inputs nodev", &["mounts"], &[], &[]),
    control("inputs noexec", &["mounts"], &[], &[]),
    control("scratch nosuid", &["mounts"], &[], &[]),
    control("scratch nodev", &["mounts"], &[], &[]),
    control("scratch noexec", &["mounts"], &[], &[]),
    control("scratch size", &["limits"], &[], &[]),
    control("scratch inodes", &["limits"], &[], &[]),
    control("output size", &["limits"], &[], &[]),
    control("output inodes", &["limits"], &[], &[]),
    control("output regular files", &[], &[], &[]),
    control("five devices", &["mounts", "devices"], &[], &[]),
    control("closed /dev", &["mounts"], &[], &[]),
    control("masked paths", &["mounts"], &[], &[]),
    control("read-only paths", &["mounts"], &[], &[]),
    control("init not dumpable", &[], &[], &[]),
    control("descriptors", &["descriptors"], &[], &[]),
    control("environment", &[], &[], &[]),
    control("memory limit", &["limits"], &[], &[]),
    control("pids limit", &["limits"], &[], &[]),
    control("cpu limit", &["limits"], &[], &[]),
    control("open files limit", &["limits"], &[], &[]),
    control("core limit", &["limits"], &[], &[]),
    control("wall limit", &[], &[], &[]),
];

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

    /// A point at which a test may have the power cut.
    pub fn step(name: &'static str) {
        let lists = [&super::EVERY_RUN[..], &super::CONTAINER, &super::HOST, &super::FILES];
        assert!(
            lists.iter().any(|list| list.contains(&name)),
            "step {name:?} is in no list, so no test cuts it"
        );
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

    pub fn step(_: &'static str) {}

    pub(crate) fn off(_: &'static str) -> bool {
        false
    }

    pub(crate) fn unseen(_: &str) -> bool {
        false
    }
}

pub use active::step;
pub(crate) use active::{off, unseen};
