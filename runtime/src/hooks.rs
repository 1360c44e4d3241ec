//! What tests need from inside: dying at a chosen step, and leaving one control of the boundary out. Debug builds only; in a release
//! build every function here is empty and no variable is read.
//!
//! The launcher reads the two variables once and hands them to its supervisor, whose copies inherit them.

use serde::{Deserialize, Serialize};

/// What a test asked for. Empty in a release build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hooks {
    /// The step at which the process that reaches it kills itself.
    kill_at: Option<String>,
    /// The control that is left out.
    without: Option<String>,
}

#[cfg(debug_assertions)]
mod active {
    use super::Hooks;
    use std::sync::OnceLock;

    static HOOKS: OnceLock<Hooks> = OnceLock::new();

    impl Hooks {
        /// From `INVARLOCK_TEST_KILL_AT` and `INVARLOCK_TEST_WITHOUT`.
        pub(crate) fn from_environment() -> Self {
            let variable = |name| std::env::var(name).ok();
            Hooks { kill_at: variable("INVARLOCK_TEST_KILL_AT"), without: variable("INVARLOCK_TEST_WITHOUT") }
        }

        /// For this process and all that are copied from it.
        pub(crate) fn set(self) {
            _ = HOOKS.set(self);
        }
    }

    /// A point at which a test may have the power cut.
    pub(crate) fn step(name: &'static str) {
        if HOOKS.get_or_init(Hooks::from_environment).kill_at.as_deref() == Some(name) {
            _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }

    /// Whether a test wants this control left out.
    pub(crate) fn off(control: &'static str) -> bool {
        HOOKS.get_or_init(Hooks::from_environment).without.as_deref() == Some(control)
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

    pub(crate) fn step(_: &'static str) {}

    pub(crate) fn off(_: &'static str) -> bool {
        false
    }
}

pub(crate) use active::{off, step};
