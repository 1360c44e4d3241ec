//! `invarlock runtime learn`: the difference between what a command called and what its system-call profile says, for a person to
//! review. The supervisor is asked about every call and answers as the profile's own program would have: learning allows nothing more.

use super::runtime::{PassThrough, Prepared, exit_code, prepare};
use crate::args::RunArgs;
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::policy::Policy;
use crate::signals::Signals;
use crate::ui;
use invarlock_runtime::{DeniedCall, Outcome, ProfileTrace as Learned};
use invarlock_seccomp::{Action, Comparison, Decision, Operator, ResolvedProfile, Rule};
use serde_json::{Value, json};

/// Runs it, with the exit code of `runtime run`.
pub fn run(what: &RunArgs, json: bool, policy: &Policy) -> Result<u8> {
    let signals = Signals::catch()?;
    let Prepared { spec, filter, rootfs: _held, .. } = prepare(what, policy)?;
    let meaning = filter.meaning()?;
    let mut output = PassThrough::aside();
    let outcome = policy
        .supervisor()
        .and_then(|supervisor| supervisor.trace_profile(spec, meaning.clone(), signals.fd(), &mut output))
        .map_err(|error| signals.check("nothing is kept").err().unwrap_or(error))?;
    output.check()?;
    let learned = outcome.profile_trace.as_ref();
    let learned = learned.ok_or_else(|| Error::new(Kind::System, "the supervisor learned nothing"))?;
    let difference = Difference { filter: &filter, meaning: &meaning, learned };
    if json {
        ui::json(&difference.as_json(&outcome));
    } else {
        difference.print(&outcome);
    }
    exit_code(&what.image, &outcome, &signals, json)
}

struct Difference<'a> {
    filter: &'a Filter,
    meaning: &'a ResolvedProfile,
    learned: &'a Learned,
}

impl Difference<'_> {
    /// What the profile allows, with how often it did.
    fn rules(&self) -> impl Iterator<Item = (&Decision, u64)> {
        let all = self.meaning.decisions.iter().zip(&self.learned.used);
        all.filter(|(it, _)| it.action == Action::Allow).map(|(it, count)| (it, *count))
    }

    fn as_json(&self, outcome: &Outcome) -> Value {
        let rule = |(it, count): (&Decision, u64)| json!({"syscall": it.syscall, "args": it.when, "reason": it.reason, "count": count});
        let tried = |it: &DeniedCall| json!({"syscall": it.syscall, "args": it.args, "count": it.count, "proposed": proposed(it)});
        json!({
            "format_version": "runtime-learn-v1",
            "status": outcome.status,
            "profile": self.filter.as_json(),
            "used": self.rules().filter(|(_, count)| *count > 0).map(rule).collect::<Vec<_>>(),
            "unused": self.rules().filter(|(_, count)| *count == 0).map(rule).collect::<Vec<_>>(),
            "unmatched": self.learned.unmatched,
            "refused": self.learned.denied.iter().map(tried).collect::<Vec<_>>(),
        })
    }

    fn print(&self, outcome: &Outcome) {
        let (all, used) = (self.rules().count(), self.rules().filter(|(_, count)| *count > 0).count());
        let program = &self.filter.program;
        ui::out(&format!(
            "{} under profile {}: {used} of its {all} rules were used\n",
            outcome.status, program.name
        ));
        let line = |count: String, it: &Decision| {
            ui::out(&format!("  {count:>9}  {:<32}  {}", rule_for_people(it), ui::printable(&it.reason)));
        };
        ui::out("used");
        self.rules().filter(|(_, count)| *count > 0).for_each(|(it, count)| line(count.to_string(), it));
        for (call, count) in &self.learned.unmatched {
            ui::out(&format!("  {count:>9}  {call:<32}  allowed because no rule names it"));
        }
        ui::out("\nunused: to be taken out, if no other run needs them");
        self.rules().filter(|(_, count)| *count == 0).for_each(|(it, _)| line(String::new(), it));
        if self.learned.denied.is_empty() {
            return ui::out("\nnothing was refused");
        }
        ui::out("\nrefused: each with the line that would allow it; whoever adds one says why in its reason");
        for it in &self.learned.denied {
            ui::out(&format!("  {:>9}  {}", it.count, proposed(it)));
        }
    }
}

/// A rule that would allow it, in our format.
fn proposed(it: &DeniedCall) -> Value {
    json!(Rule::proposed(&it.syscall, &it.args))
}

/// `fcntl (1 is 0x2)`.
fn rule_for_people(it: &Decision) -> String {
    let comparison = |it: &Comparison| {
        let (index, value) = (it.index, it.value);
        match it.op {
            Operator::Eq => format!("{index} is {value:#x}"),
            Operator::Ne => format!("{index} is not {value:#x}"),
            Operator::Lt => format!("{index} < {value:#x}"),
            Operator::Le => format!("{index} <= {value:#x}"),
            Operator::Gt => format!("{index} > {value:#x}"),
            Operator::Ge => format!("{index} >= {value:#x}"),
            Operator::MaskedEq => format!("{index} & {:#x} is {value:#x}", it.mask),
        }
    };
    if it.when.is_empty() {
        return it.syscall.clone();
    }
    format!("{} ({})", it.syscall, it.when.iter().map(comparison).collect::<Vec<_>>().join(", "))
}
