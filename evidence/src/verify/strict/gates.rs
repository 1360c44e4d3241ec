//! The gates, and the flags that must follow from the numbers.

use super::{Arm, Check};
use crate::compare::derive::{self, Decisive};
use crate::format::evaluation_report::Validation;
use crate::format::untrusted::Node;
use crate::gates;
use crate::guards::{self, Finding, Guard};
use crate::policy::{GUARD_OVERHEAD_MAX, Tier};
use crate::verify::RuntimeProvenance;
use crate::verify::python::{float, truthy};

/// The flag of the ratio.
const METRIC: &str = "primary_metric_acceptable";

/// The numbers that decide the gates.
pub(super) struct Numbers<'a> {
    pub(super) ratio: Option<f64>,
    pub(super) drift: f64,
    pub(super) preview: &'a Arm,
    pub(super) last: &'a Arm,
}

impl Numbers<'_> {
    fn tokens(&self) -> u64 {
        self.preview.tokens().saturating_add(self.last.tokens())
    }

    fn enough(&self, tier: Tier) -> bool {
        derive::enough_tokens(tier, self.tokens(), self.preview.ids.len(), self.last.ids.len())
    }
}

/// Whether a guard's block exists and is not marked as not evaluated.
fn is_evaluated(block: Node<'_>) -> bool {
    let flag = block.get("evaluated");
    block.object().is_some() && (!flag.exists() || truthy(flag))
}

impl Check<'_> {
    /// The gates, from recomputed numbers if there are any, and the flags that the report states.
    pub(super) fn gates(&mut self, tier: Tier, numbers: Option<Numbers<'_>>) {
        let report = self.report;
        let guard_flags = self.guards(tier);
        if let Some(numbers) = &numbers {
            self.number_gates(tier, numbers);
        }
        let mut required = vec![METRIC, "preview_final_drift_acceptable"];
        required.extend(guard_flags);
        if report.at("guard_overhead.evaluated").bool() == Some(true) {
            required.push("guard_overhead_acceptable");
            self.overhead_gate();
        }
        if report.at("primary_metric_tail.evaluated").bool() == Some(true) {
            required.push(gates::TAIL);
        }
        self.flags(&required, numbers.as_ref());
        if self.options.runtime_provenance == RuntimeProvenance::Host {
            self.not("runtime provenance: disabled by `--runtime-provenance host`".to_owned());
        }
        self.not("losses: they need the weights and the evaluator".to_owned());
    }

    /// The guards of the table. Returns the flags that the profile can require.
    fn guards(&mut self, tier: Tier) -> Vec<&'static str> {
        let profile = self.options.profile;
        let mut flags = Vec::new();
        for guard in &guards::TABLE {
            let flag = guard.gate.as_ref().map(|gate| gate.flag);
            if !guard.needs_statistics || is_evaluated(guard.block(self.report)) {
                flags.extend(flag);
                self.guard(tier, guard);
            } else if profile.needs_all_guards() {
                self.fail(format!(
                    "{} was not evaluated; profile {profile} requires every guard",
                    guard.name
                ));
            } else {
                self.not(format!("{}: the guard was not evaluated", guard.name));
            }
        }
        flags
    }

    /// The findings of one guard.
    fn guard(&mut self, tier: Tier, guard: &Guard) {
        let block = guard.block(self.report);
        for finding in (guard.verify)(&guards::Check { block, profile: self.options.profile, tier }) {
            match finding {
                Finding::Gate(text) => self.gate(text),
                Finding::Failure(text) => self.fail(text),
                Finding::Mismatch(text) => self.mismatch(text),
                Finding::NotRecomputed(text) => self.not(text),
            }
        }
    }

    fn overhead_gate(&mut self) {
        let ratio = self.report.at("guard_overhead.overhead_ratio");
        if self.gated() && float(ratio).is_some_and(|ratio| ratio > GUARD_OVERHEAD_MAX) {
            self.gate(format!("guard_overhead.overhead_ratio is {ratio}, above {GUARD_OVERHEAD_MAX}"));
        }
    }

    /// The flags of `validation` that the profile requires.
    fn flags(&mut self, required: &[&'static str], numbers: Option<&Numbers<'_>>) {
        let profile = self.options.profile;
        let computed = self.computed_flags(numbers);
        let enough = numbers.is_none_or(|numbers| numbers.enough(self.stated_tier));
        for flag in required.iter().copied().filter(|flag| profile.decides(flag)) {
            let recorded = self.report.get("validation").get(flag);
            let mut text = format!("validation.{flag} is {recorded}, the {profile} profile requires true");
            if flag == gates::TAIL {
                text += " (a warning about the tail does not make it false)";
            }
            match recorded.bool() {
                Some(true) => {}
                // A flag that contradicts its numbers is a fault of the evidence, not a result.
                Some(false) if computed.get(flag) != Some(true) => self.gate(text),
                // The Python package counts the tokens in every profile, the profiles here only in those that gate on them.
                Some(false) if flag == METRIC && !enough => self.gate(format!("{text}: too few tokens")),
                Some(false) => self.fail(format!("{text}; its numbers give true")),
                None if self.gated() => self.fail(text),
                None => {}
            }
        }
    }

    /// The flags of `validation` under the report's own profile and tier, if they can be computed.
    fn computed_flags(&self, numbers: Option<&Numbers<'_>>) -> Validation {
        let tier = self.stated_tier;
        let Some((numbers, ratio)) = numbers.and_then(|numbers| Some((numbers, numbers.ratio?))) else {
            return Validation::default();
        };
        let own = gates::profile(self.report.value());
        let guards = guards::stated_flags(self.report);
        let numbers =
            Decisive::Perplexity { ratio, drift: numbers.drift, enough_tokens: numbers.enough(tier) };
        derive::validation(own, tier, &numbers, &guards)
    }

    fn number_gates(&mut self, tier: Tier, numbers: &Numbers<'_>) {
        let profile = self.options.profile;
        let limit = tier.ratio_gate();
        if let Some(ratio) = numbers.ratio.filter(|ratio| *ratio > limit)
            && profile.decides(METRIC)
        {
            self.gate(format!(
                "perplexity ratio {ratio:.6} is above {limit:.3}, the limit of the {tier} tier"
            ));
        }
        if self.gated() {
            self.measurement_gates(tier, numbers);
            self.yes("ratio, drift, token and window gates, with the thresholds of the tables");
        }
    }

    /// Drift, and how much was measured.
    fn measurement_gates(&mut self, tier: Tier, numbers: &Numbers<'_>) {
        let profile = self.options.profile;
        let (low, high) = profile.drift_band();
        let drift = numbers.drift;
        if !(low..=high).contains(&drift) {
            self.gate(format!(
                "final/preview perplexity {drift:.6} is outside {low} to {high} ({profile} profile)"
            ));
        }
        if !numbers.enough(tier) {
            let (tokens, needed) = (numbers.tokens(), tier.min_tokens());
            self.gate(format!("{tokens} tokens were measured, the {tier} tier requires {needed}"));
        }
        let floor = tier.coverage();
        let (preview, last) = (numbers.preview.ids.len(), numbers.last.ids.len());
        if preview < floor.preview || last < floor.final_ {
            let (preview_floor, last_floor) = (floor.preview, floor.final_);
            self.fail(format!(
                "{preview} + {last} windows were measured, the {tier} tier requires {preview_floor} + {last_floor}"
            ));
        }
    }
}
