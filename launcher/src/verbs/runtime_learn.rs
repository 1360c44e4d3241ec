//! `invarlock runtime learn`: traces a command and compares its calls with its system-call profile, for review. Every call is reported to
//! the supervisor, which decides as the profile's filter would: no additional call is allowed.

use crate::args::LearnArgs;
use crate::error::{Error, Result};
use crate::filter::{Filter, FilterOutput};
use crate::pass_through::PassThrough;
use crate::policy::Policy;
use crate::request;
use crate::signals::Signals;
use crate::ui;
use crate::workload::{Prepared, or_interrupted};
use invarlock_runtime::{DeniedCall, Outcome, ProfileTrace, Status};
use invarlock_seccomp::{Action, Comparison, Decision, Operator, ResolvedProfile, Rule};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// The output of `runtime learn --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct LearnOutput<'a> {
    /// Always `runtime-learn-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-learn-v1")))]
    format_version: &'static str,
    /// How the command ended.
    #[cfg_attr(feature = "schemas", schemars(with = "invarlock_evidence::format::observations::Status"))]
    status: Status,
    /// The profile that it ran with.
    profile: FilterOutput<'a>,
    /// Rules that allowed a call.
    used: Vec<CountedRule<'a>>,
    /// Rules that allowed no call.
    unused: Vec<CountedRule<'a>>,
    /// Calls that no rule names and the default action allowed, by name, with their number.
    unmatched: &'a BTreeMap<String, u64>,
    /// Denied calls.
    refused: Vec<CountedCall<'a>>,
}

/// A rule of the profile.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct CountedRule<'a> {
    /// Name of the call.
    syscall: &'a str,
    /// Comparisons of arguments that must all hold.
    args: &'a [Comparison],
    /// Why the rule exists.
    reason: &'a str,
    /// Number of calls that it allowed.
    count: u64,
}

impl<'a> CountedRule<'a> {
    fn new((rule, count): (&'a Decision, u64)) -> Self {
        Self { syscall: &rule.syscall, args: &rule.when, reason: &rule.reason, count }
    }
}

/// A denied call.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct CountedCall<'a> {
    /// Its name.
    syscall: &'a str,
    /// Arguments by index, from 0; empty if there were too many combinations.
    args: &'a [(u8, u64)],
    /// Number of calls.
    count: u64,
    /// A rule that would allow it.
    proposed: Rule,
}

impl<'a> CountedCall<'a> {
    fn new(call: &'a DeniedCall) -> Self {
        Self { syscall: &call.syscall, args: &call.args, count: call.count, proposed: proposed(call) }
    }
}

/// Returns the exit code of the command.
pub fn run(args: &LearnArgs, policy: &Policy) -> Result<u8> {
    let signals = Signals::catch()?;
    let workload = request::of_workload(&args.workload);
    let Prepared { supervisor, spec, filter, rootfs: _in_use, .. } = workload.prepare(policy)?;
    let profile = filter.resolved()?;
    let mut output = PassThrough::to_stderr(&signals);
    let outcome = supervisor
        .trace_profile(spec, profile.clone(), signals.fd(), &mut output)
        .map_err(|error| or_interrupted(error, &signals))?;
    output.check()?;
    let trace =
        outcome.profile_trace.as_ref().ok_or_else(|| Error::system("the supervisor returned no trace"))?;
    let comparison = ProfileUse { filter: &filter, profile: &profile, trace };
    if args.json {
        ui::json(&comparison.output(&outcome))?;
    } else {
        comparison.print(&outcome);
    }
    workload.exit_code(&outcome, &signals, args.json)
}

/// A trace compared with the profile.
struct ProfileUse<'a> {
    filter: &'a Filter,
    profile: &'a ResolvedProfile,
    trace: &'a ProfileTrace,
}

impl ProfileUse<'_> {
    /// The rules that allow a call, each with the number of calls that it allowed.
    fn rules(&self) -> impl Iterator<Item = (&Decision, u64)> {
        let all = self.profile.decisions.iter().zip(&self.trace.used);
        all.filter(|(rule, _)| rule.action == Action::Allow).map(|(rule, count)| (rule, *count))
    }

    fn used(&self) -> impl Iterator<Item = (&Decision, u64)> {
        self.rules().filter(|(_, count)| *count > 0)
    }

    fn unused(&self) -> impl Iterator<Item = (&Decision, u64)> {
        self.rules().filter(|(_, count)| *count == 0)
    }

    fn output(&self, outcome: &Outcome) -> LearnOutput<'_> {
        LearnOutput {
            format_version: "runtime-learn-v1",
            status: outcome.status,
            profile: self.filter.output(),
            used: self.used().map(CountedRule::new).collect(),
            unused: self.unused().map(CountedRule::new).collect(),
            unmatched: &self.trace.unmatched,
            refused: self.trace.denied.iter().map(CountedCall::new).collect(),
        }
    }

    fn print(&self, outcome: &Outcome) {
        let (all, used) = (self.rules().count(), self.used().count());
        let name = &self.filter.program.name;
        ui::out(&format!("{}; profile {name}: {used} of {all} rules used\n", outcome.status));
        let width = self.rules().map(|(rule, _)| readable(rule).len()).max().unwrap_or_default();
        let line = |count: String, rule: &Decision| {
            ui::out(&format!("  {count:>9}  {:<width$}  {}", readable(rule), ui::printable(&rule.reason)));
        };
        ui::out("used (number of calls, rule, reason); argument 1 has `index` 0 in a profile");
        self.used().for_each(|(rule, count)| line(count.to_string(), rule));
        for (call, count) in &self.trace.unmatched {
            ui::out(&format!(
                "  {count:>9}  {call:<width$}  allowed by the default action; no rule names it"
            ));
        }
        ui::out("\nunused: can be removed if no other run needs them");
        self.unused().for_each(|(rule, _)| line(String::new(), rule));
        if self.trace.denied.is_empty() {
            return ui::out("\nno call was denied");
        }
        ui::out("\ndenied (number of calls, rule that would allow it); add a rule only with a reason");
        for call in &self.trace.denied {
            ui::out(&format!("  {:>9}  {}", call.count, json!(proposed(call))));
        }
    }
}

/// A rule that would allow the call, in our profile format.
fn proposed(call: &DeniedCall) -> Rule {
    Rule::proposed(&call.syscall, &call.args)
}

/// The call of a rule with its conditions: `fcntl (argument 2 = 0x2)`. Arguments are counted from 1, as in the call's manual page.
fn readable(rule: &Decision) -> String {
    let condition = |comparison: &Comparison| {
        let operator = match comparison.op {
            Operator::Eq => "=".to_owned(),
            Operator::Ne => "!=".to_owned(),
            Operator::Lt => "<".to_owned(),
            Operator::Le => "<=".to_owned(),
            Operator::Gt => ">".to_owned(),
            Operator::Ge => ">=".to_owned(),
            Operator::MaskedEq => format!("& {:#x} =", comparison.mask),
        };
        format!("argument {} {operator} {:#x}", u32::from(comparison.index) + 1, comparison.value)
    };
    if rule.when.is_empty() {
        return rule.syscall.clone();
    }
    format!("{} ({})", rule.syscall, rule.when.iter().map(condition).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_name_the_argument_and_the_operator() {
        let condition = |index, op, mask, value| Comparison { index, wide: false, op, mask, value };
        let rule = |when| Decision {
            syscall: "mmap".into(),
            number: 9,
            when,
            action: Action::Allow,
            reason: String::new(),
        };
        assert_eq!(readable(&rule(Vec::new())), "mmap");
        let two = vec![condition(2, Operator::MaskedEq, 4, 0), condition(0, Operator::Ne, 0, 16)];
        assert_eq!(readable(&rule(two)), "mmap (argument 3 & 0x4 = 0x0, argument 1 != 0x10)");
    }
}
