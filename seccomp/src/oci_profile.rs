//! Writes a resolved profile in the format of the OCI runtime specification, for other runtimes.
//!
//! That format compares whole registers, and runtimes take two comparisons of one argument as alternatives. The kernel reads an `int` from the
//! low half of a register. So a condition on a half, and several conditions on one argument, are written as bit patterns: one entry for
//! each combination of the patterns of the arguments.
//!
//! A runtime cannot tell a call that is denied from one that it does not know: both get the action of the profile.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bpf::ENOSYS;
use crate::pattern::{Pattern, patterns};
use crate::resolved_profile::{Action, Comparison, Decision, Operator, ResolvedProfile};
use crate::{Arch, Error, Result, table};

/// Most entries. The built-in profiles have fewer than 1000.
const MAX_ENTRIES: usize = 8192;

/// `linux.seccomp` of an OCI configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciProfile {
    default_action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u16>,
    architectures: [&'static str; 1],
    syscalls: Vec<Entry>,
}

/// Calls, the conditions on their arguments that must all hold, and an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    names: Vec<String>,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Arg>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u8,
    value: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_two: Option<u64>,
    op: &'static str,
}

impl ResolvedProfile {
    /// The profile for other runtimes. Denied calls are not reported there.
    pub fn to_oci(&self) -> Result<OciProfile> {
        let (default_action, default_errno_ret) = name_of(self.otherwise);
        let mut decisions: Vec<Decision> =
            self.decisions.iter().filter(|decision| decision.action != self.otherwise).cloned().collect();
        if self.closed
            && let Some(number) = table::number(self.arch, "clone3")
        {
            decisions.retain(|decision| decision.number != number);
            let syscall = "clone3".to_owned();
            let action = Action::Errno(ENOSYS);
            decisions.push(Decision { syscall, number, when: Vec::new(), action, reason: String::new() });
        }
        let mut whole: BTreeMap<Action, Vec<String>> = BTreeMap::new();
        let mut syscalls = Vec::new();
        for decision in decisions {
            match decision.when.is_empty() {
                true => whole.entry(decision.action).or_default().push(decision.syscall),
                false => syscalls.extend(entries(&decision)?),
            }
            if syscalls.len() > MAX_ENTRIES {
                return Err(self.too_long());
            }
        }
        let whole = whole.into_iter().map(|(action, names)| Entry::new(names, action, Vec::new()));
        Ok(OciProfile {
            default_action,
            default_errno_ret,
            architectures: [match self.arch {
                Arch::X86_64 => "SCMP_ARCH_X86_64",
                Arch::Aarch64 => "SCMP_ARCH_AARCH64",
            }],
            syscalls: whole.chain(syscalls).collect(),
        })
    }

    fn too_long(&self) -> Error {
        Error::input(format!(
            "seccomp profile {}: in the format of the OCI it has more than {MAX_ENTRIES} entries",
            self.name
        ))
        .with_hint("use fewer conditions")
    }
}

impl Entry {
    fn new(names: Vec<String>, action: Action, args: Vec<Arg>) -> Self {
        let (action, errno_ret) = name_of(action);
        Entry { names, action, errno_ret, args }
    }
}

/// The entries of a decision with conditions: none if no argument satisfies them.
fn entries(decision: &Decision) -> Result<Vec<Entry>> {
    let mut combinations: Vec<Vec<Arg>> = vec![Vec::new()];
    for index in 0..6 {
        let of_arg: Vec<&Comparison> = decision.when.iter().filter(|when| when.index == index).collect();
        let alternatives: Vec<Option<Arg>> = match of_arg[..] {
            [] => continue,
            [only] if only.wide => vec![Some(Arg::whole(only))],
            _ => patterns(of_arg).into_iter().map(|pattern| Arg::pattern(index, pattern)).collect(),
        };
        let longer = |args: &Vec<Arg>| {
            let args = args.clone();
            alternatives.iter().map(move |arg| args.iter().cloned().chain(arg.clone()).collect())
        };
        if combinations.len().saturating_mul(alternatives.len()) > MAX_ENTRIES {
            return Err(Error::input(format!(
                "seccomp profile: the conditions on {} have more than {MAX_ENTRIES} combinations in the format of the OCI",
                decision.syscall
            )));
        }
        combinations = combinations.iter().flat_map(longer).collect();
    }
    let entry = |args| Entry::new(vec![decision.syscall.clone()], decision.action, args);
    Ok(combinations.into_iter().map(entry).collect())
}

impl Arg {
    /// A comparison of the whole register.
    fn whole(comparison: &Comparison) -> Self {
        let op = match comparison.op {
            Operator::Eq => "SCMP_CMP_EQ",
            Operator::Ne => "SCMP_CMP_NE",
            Operator::Lt => "SCMP_CMP_LT",
            Operator::Le => "SCMP_CMP_LE",
            Operator::Gt => "SCMP_CMP_GT",
            Operator::Ge => "SCMP_CMP_GE",
            Operator::MaskedEq => "SCMP_CMP_MASKED_EQ",
        };
        let (value, value_two) = match comparison.op {
            Operator::MaskedEq => (comparison.mask, Some(comparison.value)),
            _ => (comparison.value, None),
        };
        Arg { index: comparison.index, value, value_two, op }
    }

    /// A bit pattern; none if it has no bit.
    fn pattern(index: u8, Pattern { mask, value }: Pattern) -> Option<Self> {
        let op = "SCMP_CMP_MASKED_EQ";
        (mask != 0).then_some(Arg { index, value: mask, value_two: Some(value), op })
    }
}

fn name_of(action: Action) -> (&'static str, Option<u16>) {
    match action {
        Action::Allow => ("SCMP_ACT_ALLOW", None),
        Action::Errno(errno) => ("SCMP_ACT_ERRNO", Some(errno)),
        Action::Trap => ("SCMP_ACT_TRAP", None),
        Action::KillThread => ("SCMP_ACT_KILL_THREAD", None),
        Action::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
    }
}
