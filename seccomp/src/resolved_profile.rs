//! A profile resolved for one architecture: numbers instead of names. Every format is translated to it, and programs are
//! compiled from it.

use serde::{Deserialize, Serialize};

use crate::bpf::ENOSYS;
use crate::{Arch, Error, Result, table};

/// A machine, as far as a profile can depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its architecture.
    pub arch: Arch,
    /// The first two numbers of its kernel's release.
    pub kernel: (u32, u32),
}

/// The action for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is executed.
    Allow,
    /// It fails with this errno.
    Errno(u16),
    /// It is not executed, and its thread gets SIGSYS.
    Trap,
    /// Its thread is killed.
    KillThread,
    /// Its process is killed.
    KillProcess,
}

/// An unsigned comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// `argument & mask == value`.
    MaskedEq,
}

/// A comparison of one argument with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Comparison {
    /// Which argument, from 0 to 5.
    pub index: u8,
    /// Whether the whole register is compared, or its low half only.
    pub wide: bool,
    /// The operator.
    pub op: Operator,
    /// The bits that [`Operator::MaskedEq`] compares.
    pub mask: u64,
    /// The value.
    pub value: u64,
}

impl Comparison {
    /// Whether the comparison holds for these arguments.
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        let arg = args.get(usize::from(self.index)).copied().unwrap_or(0);
        let arg = if self.wide { arg } else { arg & u64::from(u32::MAX) };
        match self.op {
            Operator::Eq => arg == self.value,
            Operator::Ne => arg != self.value,
            Operator::Lt => arg < self.value,
            Operator::Le => arg <= self.value,
            Operator::Gt => arg > self.value,
            Operator::Ge => arg >= self.value,
            Operator::MaskedEq => arg & self.mask == self.value,
        }
    }
}

/// A call, the comparisons that must all hold, and the action for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The call's name.
    pub syscall: String,
    /// Its number.
    pub number: u32,
    /// Comparisons that must all hold.
    pub when: Vec<Comparison>,
    /// The action.
    pub action: Action,
    /// The reason of the rule, or its position in the profile.
    pub reason: String,
}

impl Decision {
    /// Whether the decision applies to this call.
    pub fn matches(&self, number: u32, args: &[u64; 6]) -> bool {
        self.number == number && self.when.iter().all(|comparison| comparison.holds(args))
    }
}

/// The decisions of a profile on `arch`. Two decisions that can match the same call have the same action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResolvedProfile {
    /// The profile's name.
    pub name: String,
    /// The machine.
    pub arch: Arch,
    /// Whether `clone3`, and numbers that this crate does not know, give `ENOSYS` before the decisions are consulted.
    pub closed: bool,
    /// The decisions.
    pub decisions: Vec<Decision>,
    /// The action for a call that no decision matches.
    pub otherwise: Action,
}

/// The calls of init between the installation of the filter and the start of the workload. A profile for containers must
/// allow them.
pub const REQUIRED_CALLS: [&str; 4] = ["read", "write", "execve", "exit_group"];

impl ResolvedProfile {
    /// The action for a call of this architecture, and the index of the decision that matches it.
    pub fn decide(&self, number: u32, args: &[u64; 6]) -> (Action, Option<usize>) {
        let name = table::name(self.arch, number);
        if self.closed && matches!(name, None | Some("clone3")) {
            return (Action::Errno(ENOSYS), None);
        }
        let found = self.decisions.iter().position(|decision| decision.matches(number, args));
        (found.map_or(self.otherwise, |at| self.decisions[at].action), found)
    }

    /// An error for a profile under which no workload could be started.
    pub fn check_required_calls(&self) -> Result<()> {
        let allowed = |call: &&str| {
            let mut of_call = self.decisions.iter().filter(|decision| decision.syscall == *call).peekable();
            match of_call.peek() {
                Some(_) => {
                    of_call.any(|decision| decision.action == Action::Allow && decision.when.is_empty())
                }
                None => self.otherwise == Action::Allow,
            }
        };
        match REQUIRED_CALLS.iter().find(|call| !allowed(call)) {
            Some(call) => Err(Error::input(format!(
                "seccomp profile {}: it does not allow {call} with any arguments, so no program can be started",
                self.name
            ))
            .with_hint(format!("allow {} without conditions", REQUIRED_CALLS.join(", ")))),
            None => Ok(()),
        }
    }
}
