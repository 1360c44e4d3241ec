//! The steps of a run (`steps.rs`) and, with the cargo feature `fault-injection`, fault hooks for tests: killing a process at a named
//! step, and leaving out one control of the boundary (`controls.rs`). Without the feature no variable is read and [`Hooks`] is empty.
//!
//! The launcher reads the variables once and sends them to its supervisor, whose clones inherit them.

#[cfg(feature = "fault-injection")]
mod controls;
mod steps;

#[cfg(feature = "fault-injection")]
pub use controls::{CONTROLS, Control};
pub use steps::{BY_ROOT, CONTAINER, EVERY_RUN, FILES, HOST, WORKLOAD, step};
pub(crate) use steps::{share_timeline, since_start, start, timeline};

use serde::{Deserialize, Serialize};

/// The faults that a test requests. Empty without the feature `fault-injection`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// The step at which the process that reaches it kills itself.
    #[cfg(feature = "fault-injection")]
    kill_at: Option<String>,
    /// The control that is left out.
    #[cfg(feature = "fault-injection")]
    without: Option<String>,
    /// Whether the supervisor also skips the checks that would detect this, so that the workload starts.
    #[cfg(feature = "fault-injection")]
    unchecked: bool,
}

#[cfg(feature = "fault-injection")]
mod active {
    use super::Hooks;
    use super::controls::{CONTROLS, Control};
    use rustix::process::{WaitId, WaitIdOptions};
    use std::sync::OnceLock;

    static HOOKS: OnceLock<Hooks> = OnceLock::new();

    impl Hooks {
        /// From `INVARLOCK_TEST_KILL_AT`, `INVARLOCK_TEST_WITHOUT` and `INVARLOCK_TEST_UNSEEN`.
        pub(crate) fn from_environment() -> Self {
            let variable = |name| std::env::var(name).ok();
            Hooks {
                kill_at: variable("INVARLOCK_TEST_KILL_AT"),
                without: variable("INVARLOCK_TEST_WITHOUT"),
                unchecked: variable("INVARLOCK_TEST_UNSEEN").is_some(),
            }
        }

        /// Sets the hooks of this process and its clones.
        pub(crate) fn set(self) {
            _ = HOOKS.set(self);
        }
    }

    pub(super) fn kill_at(name: &'static str) {
        let selected = HOOKS.get_or_init(Hooks::from_environment).kill_at.as_deref();
        if selected == Some("builder: started") && name == "supervisor: builder cloned" {
            // The order of a busy machine: the builder is dead before the supervisor writes its id maps.
            let dead = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            _ = rustix::process::waitid(WaitId::All, dead);
        }
        if selected == Some(name) {
            _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            // An installed filter may deny kill(2).
            std::process::abort();
        }
    }

    /// Whether a test leaves this control out.
    pub(crate) fn off(control: &'static str) -> bool {
        assert!(
            CONTROLS.iter().any(|c| c.name == control),
            "control {control:?} is not listed, so no test leaves it out"
        );
        HOOKS.get_or_init(Hooks::from_environment).without.as_deref() == Some(control)
    }

    /// Whether a test attacks a run without one of its controls. Landlock repeats what some controls do, so it is then left out as well:
    /// each control must be seen to matter alone.
    pub(crate) fn second_wall_off() -> bool {
        let hooks = HOOKS.get_or_init(Hooks::from_environment);
        hooks.unchecked && hooks.without.is_some()
    }

    /// Whether a test skips the check of this observation, because the control that it would show is left out.
    pub(crate) fn unchecked(observation: &str) -> bool {
        let hooks = HOOKS.get_or_init(Hooks::from_environment);
        let left_out = |control: &&Control| hooks.without.as_deref() == Some(control.name);
        hooks.unchecked && CONTROLS.iter().find(left_out).is_some_and(|c| c.observed.contains(&observation))
    }
}

#[cfg(not(feature = "fault-injection"))]
mod active {
    use super::Hooks;

    impl Hooks {
        pub(crate) fn from_environment() -> Self {
            Hooks {}
        }

        pub(crate) fn set(self) {}
    }

    pub(super) fn kill_at(_: &'static str) {}

    pub(crate) fn off(_: &'static str) -> bool {
        false
    }

    pub(crate) fn second_wall_off() -> bool {
        false
    }

    pub(crate) fn unchecked(_: &str) -> bool {
        false
    }
}

use active::kill_at;
pub(crate) use active::{off, second_wall_off, unchecked};
