//! What a profile means on one machine: for each call the numbers and comparisons, resolved, and what becomes of it. Every format of
//! profile ends here, and programs are compiled from here.

use serde::{Deserialize, Serialize};

use crate::{Arch, Error, Operator, Result, table};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is made.
    Allow,
    /// It is not made and gives this errno.
    Errno(u16),
    /// It is not made and its thread gets SIGSYS.
    Trap,
    /// Its thread is killed.
    KillThread,
    /// Its process is killed.
    KillProcess,
}

/// A comparison of one argument with numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Comparison {
    /// Which argument, from 0 to 5.
    pub index: u8,
    /// Whether the whole register is compared, or only its low half.
    pub wide: bool,
    /// How.
    pub op: Operator,
    /// The bits that [`Operator::MaskedEq`] looks at.
    pub mask: u64,
    /// With what.
    pub value: u64,
}

impl Comparison {
    /// Whether it holds for these arguments.
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

/// One call, the comparisons that must all hold, and what becomes of it then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The call's name.
    pub syscall: String,
    /// Its number.
    pub number: u32,
    /// What must hold.
    pub when: Vec<Comparison>,
    /// What becomes of it.
    pub action: Action,
    /// Why, or where in the profile it stands.
    pub reason: String,
}

impl Decision {
    /// Whether it decides this call.
    pub fn matches(&self, number: u32, args: &[u64; 6]) -> bool {
        self.number == number && self.when.iter().all(|it| it.holds(args))
    }
}

/// What a profile means on `arch`. Two decisions that can match the same call never differ in their action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResolvedProfile {
    /// The profile's name.
    pub name: String,
    /// The machine.
    pub arch: Arch,
    /// Whether `clone3` and numbers that this crate does not know give `ENOSYS` before any decision is asked.
    pub closed: bool,
    /// What it decides.
    pub decisions: Vec<Decision>,
    /// What becomes of a call that no decision matches.
    pub otherwise: Action,
}

/// The calls that a workload-to-be makes between its filter and its program, so that no profile for containers can be without them.
pub const NEEDED: [&str; 4] = ["read", "write", "execve", "exit_group"];

impl ResolvedProfile {
    /// What becomes of a call of this machine's own architecture, and which decision says so.
    pub fn decide(&self, number: u32, args: &[u64; 6]) -> (Action, Option<usize>) {
        let name = table::name(self.arch, number);
        if self.closed && matches!(name, None | Some("clone3")) {
            return (Action::Errno(crate::compile::ENOSYS), None);
        }
        let found = self.decisions.iter().position(|it| it.matches(number, args));
        (found.map_or(self.otherwise, |at| self.decisions[at].action), found)
    }

    /// Refuses a meaning under which no workload could be started.
    pub fn check_needed(&self) -> Result<()> {
        let allowed = |call: &&str| {
            let mut of_call = self.decisions.iter().filter(|it| it.syscall == *call).peekable();
            match of_call.peek() {
                Some(_) => of_call.any(|it| it.action == Action::Allow && it.when.is_empty()),
                None => self.otherwise == Action::Allow,
            }
        };
        match NEEDED.iter().find(|call| !allowed(call)) {
            Some(call) => Err(Error::input(format!(
                "system-call profile {}: it does not allow {call} whatever its arguments, and without that no program can be started in a container; allow {}",
                self.name,
                NEEDED.join(", ")
            ))),
            None => Ok(()),
        }
    }
}
