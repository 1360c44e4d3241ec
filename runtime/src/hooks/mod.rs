//! The steps of a run (`steps.rs`), and, in debug builds, what tests need from inside: dying at one of them, and leaving one control
//! of the boundary out (`controls.rs`). In a release build no variable is read.
//!
//! The launcher reads the variables once and hands them to its supervisor, whose copies inherit them.

#[cfg(debug_assertions)]
mod controls;
mod steps;

#[cfg(debug_assertions)]
pub use controls::{CONTROLS, Control};
pub use steps::{CONTAINER, EVERY_RUN, FILES, HOST, WORKLOAD, step};
pub(crate) use steps::{share_timeline, since_start, start, timeline};

use serde::{Deserialize, Serialize};

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
    use super::Hooks;
    use super::controls::{CONTROLS, Control};
    use std::sync::OnceLock;

    static HOOKS: OnceLock<Hooks> = OnceLock::new();

    impl Hooks {
        /// From `INVARLOCK_TEST_KILL_AT`, `INVARLOCK_TEST_WITHOUT` and `INVARLOCK_TEST_UNSEEN`.
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

use active::cut;
pub(crate) use active::{off, unseen};
