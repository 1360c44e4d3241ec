//! The guards: checks of a subject besides its metric, one file a guard.
//!
//! [`TABLE`] is the only place that lists them. What is written, decided, verified and shown of guards follows from it.

// Without its features, this crate only writes blocks.
#![cfg_attr(not(all(feature = "html", feature = "verify")), allow(dead_code))]

mod contract;
mod family;
pub mod invariants;
mod limits;
mod not_evaluated;
pub mod rmt;
pub mod spectral;
mod upstream_limits;
pub mod variance;

use crate::format::evaluation_report::{EvaluationReport, GuardBlock, GuardEntry, NotEvaluated};
use crate::format::guard_request::GuardRequest;
use crate::format::metrics::Metric;
use crate::format::run_report::{self, RunReport};
use crate::format::statistics::GuardStatistics;
use crate::format::tiers::TierLimits;
use crate::format::to_value;
use crate::format::untrusted::Node;
use crate::numerics::digest::sha256_hex;
use crate::policy::{Profile, Tier};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Every guard, in the order of reports and pages. A new guard is a file of this module and an element of this table.
pub static TABLE: [Guard; 4] = [invariants::GUARD, spectral::GUARD, rmt::GUARD, variance::GUARD];

/// One guard.
pub struct Guard {
    /// Its name in run reports and the name of its block in evaluation reports.
    pub name: &'static str,
    /// Its name on the page.
    pub title: &'static str,
    /// What it checks, in half a sentence.
    pub purpose: &'static str,
    /// The gate that it decides, if any.
    pub gate: Option<GuardGate>,
    /// Evaluates both sides; none where an older evaluator did not measure for it.
    pub(crate) evaluate: fn(&Sides<'_>) -> Option<Evaluation>,
    /// Whether it needs [`GuardStatistics`]. A report in which such a guard was not evaluated is complete.
    pub(crate) needs_statistics: bool,
    /// Members of its block where it was not evaluated, besides those of [`not_evaluated::Block`].
    pub(crate) not_evaluated: &'static [(&'static str, bool)],
    /// Checks its block against what the block states of both sides.
    pub(crate) verify: fn(&Check<'_>) -> Vec<Finding>,
    /// Its outcome, from its block and, where the block has none, from its flag.
    pub(crate) outcome: fn(Node<'_>, Option<bool>) -> Outcome,
    /// Facts of its block for the page.
    pub(crate) facts: fn(Node<'_>) -> Vec<Fact>,
}

/// The gate that a guard decides.
pub struct GuardGate {
    /// Its flag in `validation`.
    pub flag: &'static str,
    /// Its label in the terminal and in JSON, as upstream's console has it.
    pub label: &'static str,
    /// Its name on the page.
    pub title: &'static str,
    /// What was measured and its limit, for the page.
    pub(crate) measured: fn(Node<'_>) -> (Option<Fact>, Option<Limit>),
    /// One line for the terminal, of a guard that was evaluated.
    pub(crate) detail: fn(Node<'_>) -> String,
}

/// What a guard judges from.
pub(crate) struct Sides<'a> {
    /// The baseline's run report.
    pub(crate) baseline: &'a RunReport,
    /// The subject's run report.
    pub(crate) subject: &'a RunReport,
    /// The statistics of both, if both have them.
    pub(crate) statistics: Option<[&'a GuardStatistics; 2]>,
    /// The profile, which settings of the variance guard depend on.
    pub(crate) profile: Profile,
    /// The tier, which the limits depend on.
    pub(crate) tier: Tier,
    /// Limits that replace those of the tier.
    pub(crate) limits: TierLimits,
    /// How the guards judge.
    pub(crate) request: GuardRequest,
}

impl Sides<'_> {
    /// A guard's element of the subject's run report.
    fn measured(&self, name: &str) -> Option<run_report::Guard> {
        self.subject.guards.iter().find(|guard| guard.name == name).cloned()
    }

    /// The same with an outcome, and without the statistics, which the run report has.
    fn entry(&self, name: &str, passed: bool, decision: Decision) -> Option<run_report::Guard> {
        let decision = Some(decision.name().to_owned());
        self.measured(name).map(|guard| run_report::Guard {
            passed: Some(passed),
            decision,
            details: Map::new(),
            ..guard
        })
    }
}

/// Digests of the statistics from which a guard judged, as the run reports have them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StatisticsDigests {
    /// SHA-256 of the baseline's as compact JSON.
    pub baseline: String,
    /// The same of the subject's.
    pub subject: String,
}

impl StatisticsDigests {
    /// Of these statistics.
    fn of<T: Serialize>([baseline, subject]: [&T; 2]) -> Self {
        // A value of these types is always written.
        let digest = |statistics: &T| sha256_hex(&serde_json::to_vec(statistics).unwrap_or_default());
        Self { baseline: digest(baseline), subject: digest(subject) }
    }
}

/// The result of a guard on both sides.
pub(crate) struct Evaluation {
    /// Its block in the report.
    pub(crate) block: GuardBlock,
    /// Whether the subject passes.
    pub(crate) passed: bool,
    /// Its element of the report's `guards`.
    pub(crate) entry: Option<run_report::Guard>,
}

/// What follows from a guard's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// No failure.
    Allow,
    /// Warnings only.
    Monitor,
    /// A fatal failure.
    Block,
}

impl Decision {
    /// Of a guard that passed or not, with or without a finding.
    fn of(passed: bool, clean: bool) -> Self {
        match (passed, clean) {
            (false, _) => Decision::Block,
            (true, false) => Decision::Monitor,
            (true, true) => Decision::Allow,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Decision::Allow => "allow",
            Decision::Monitor => "monitor",
            Decision::Block => "block",
        }
    }
}

/// An outcome of a guard, read from a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It passed.
    Passed,
    /// It passed with a warning.
    Warned,
    /// It failed.
    Failed,
    /// It decides nothing.
    Monitored,
    /// It was not evaluated.
    NotEvaluated,
    /// The report does not state its outcome.
    NotRecorded,
}

impl From<Option<bool>> for Outcome {
    fn from(passed: Option<bool>) -> Self {
        match passed {
            Some(true) => Outcome::Passed,
            Some(false) => Outcome::Failed,
            None => Outcome::NotRecorded,
        }
    }
}

/// A fact of a block, to be formatted by the page.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fact {
    /// A number of something: `3 checks`.
    Count(f64, &'static str),
    /// A name and a number with so many significant digits.
    Number(&'static str, f64, usize),
    /// A name and a ratio.
    Ratio(&'static str, f64),
    /// A sentence.
    Text(&'static str),
    /// A name and a value from the report.
    Value(&'static str, String),
}

impl Fact {
    /// The count at `path`, if the block has it.
    pub(crate) fn count(block: Node<'_>, path: &str, noun: &'static str) -> Option<Fact> {
        block.at(path).f64().map(|number| Fact::Count(number, noun))
    }
}

/// A limit of a guard, for the page.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Limit {
    /// No failure.
    NoFailure,
    /// At most so many.
    AtMost(f64),
    /// A tolerance.
    Epsilon(f64),
}

/// What a guard's verification gets.
pub(crate) struct Check<'a> {
    /// The guard's block.
    pub(crate) block: Node<'a>,
    /// The verifier's profile.
    pub(crate) profile: Profile,
    /// The tier.
    pub(crate) tier: Tier,
}

/// One result of a guard's verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The subject fails the gate.
    Gate(String),
    /// The evidence is incomplete or contradicts itself.
    Failure(String),
    /// A recorded value differs from the recomputed one.
    Mismatch(String),
    /// Something cannot be recomputed.
    NotRecomputed(String),
}

impl Guard {
    /// Its block in a report.
    pub(crate) fn block<'a>(&self, report: Node<'a>) -> Node<'a> {
        report.get(self.name)
    }

    /// Whether a report says that it was evaluated; a block without the member was.
    pub(crate) fn is_evaluated(block: Node<'_>) -> bool {
        block.object().is_some() && block.get("evaluated").bool() != Some(false)
    }
}

/// Flags of the guards that every report evaluates, as their blocks state the outcome.
pub(crate) fn stated_flags(report: Node<'_>) -> Vec<(&'static str, bool)> {
    let evaluated = TABLE.iter().filter(|guard| !guard.needs_statistics);
    let flag = |guard: &'static Guard| {
        let outcome = (guard.outcome)(guard.block(report), None);
        Some((guard.gate.as_ref()?.flag, matches!(outcome, Outcome::Passed | Outcome::Warned)))
    };
    evaluated.filter_map(flag).collect()
}

/// What the guards say of a comparison.
pub(crate) struct Evaluations {
    /// Their blocks by name, in the order of the table.
    pub(crate) blocks: Map<String, Value>,
    /// Flags of the guards that were evaluated.
    pub(crate) flags: Vec<(&'static str, bool)>,
    /// Elements of the report's `guards`.
    pub(crate) entries: Vec<GuardEntry>,
    /// Names of the guards that were evaluated.
    pub(crate) observed: Vec<String>,
    /// Names of the others.
    pub(crate) missing: Vec<&'static str>,
}

impl Evaluations {
    /// Evaluates every guard of the table.
    pub(crate) fn new(sides: &Sides<'_>) -> Self {
        let mut found = Evaluations {
            blocks: Map::new(),
            flags: Vec::new(),
            entries: Vec::new(),
            observed: Vec::new(),
            missing: Vec::new(),
        };
        for guard in &TABLE {
            let block = match (guard.evaluate)(sides) {
                Some(evaluation) => {
                    found.flags.extend(guard.gate.as_ref().map(|gate| (gate.flag, evaluation.passed)));
                    found.entries.extend(evaluation.entry.map(GuardEntry::Evaluated));
                    found.observed.push(guard.name.to_owned());
                    evaluation.block
                }
                None => {
                    // A container's claim to have run a guard is not repeated.
                    found.entries.push(GuardEntry::NotEvaluated(NotEvaluated {
                        name: guard.name.to_owned(),
                        evaluated: false,
                        passed: None,
                    }));
                    found.missing.push(guard.name);
                    not_evaluated::block(guard.not_evaluated)
                }
            };
            found.blocks.insert(guard.name.to_owned(), Value::Object(block));
        }
        if found.missing.is_empty() {
            found.flags.push(("guard_overhead_acceptable", true));
        }
        found
    }
}

impl Evaluations {
    /// The flags in a report of a metric. Guard overhead is that of a perplexity.
    pub(crate) fn flags_for(&self, metric: &Metric) -> Vec<(&'static str, bool)> {
        let of_perplexity = |flag: &str| flag == "guard_overhead_acceptable";
        let flags = self.flags.iter().copied();
        flags.filter(|(flag, _)| !metric.is_accuracy() || !of_perplexity(flag)).collect()
    }
}

/// The order of guards in InvarLock 0.12, which checks the invariants before and after an edit.
pub(crate) const CHAIN: [&str; 5] = ["invariants", "spectral", "rmt", "variance", "invariants"];

impl Evaluations {
    /// The guards that were evaluated, as [`CHAIN`] if all were: the invariants of the baseline are checked first, those of the subject last.
    pub(crate) fn chain(&self) -> Vec<String> {
        match self.missing.is_empty() {
            true => CHAIN.map(str::to_owned).to_vec(),
            false => self.observed.clone(),
        }
    }
}

/// Names of the guards that were not evaluated in a report of this program.
pub(crate) fn missing(report: &EvaluationReport) -> Vec<&'static str> {
    let evaluated = |guard: &&Guard| {
        let block = report.guard_blocks.get(guard.name);
        !guard.needs_statistics || block.is_some_and(|block| block["evaluated"] == true)
    };
    TABLE.iter().filter(|guard| !evaluated(guard)).map(|guard| guard.name).collect()
}

/// A typed block as an object.
fn object(block: &impl serde::Serialize) -> GuardBlock {
    match to_value(block) {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_flags_are_unique() {
        let names: std::collections::BTreeSet<_> = TABLE.iter().map(|guard| guard.name).collect();
        let gates: Vec<_> = TABLE.iter().filter_map(|guard| guard.gate.as_ref()).collect();
        let flags: std::collections::BTreeSet<_> = gates.iter().map(|gate| gate.flag).collect();
        assert_eq!((names.len(), flags.len()), (TABLE.len(), gates.len()));
    }
}
