//! Tier and thresholds: those of the tables, or tighter ones.

use super::Check;
use crate::format::untrusted::Node;
use crate::policy::{
    HYSTERESIS_RATIO, MIN_TOKENS_TOLERANCE, TAIL_EPSILON, TAIL_MASS_MAX, TAIL_MIN_WINDOWS, TAIL_QUANTILE,
    Tier,
};
use crate::verify::python::{float, truthy};
use crate::verify::upstream::{band, tiny_relax};
use serde_json::Map;

fn tier_name(report: Node<'_>) -> &str {
    report.at("auto.tier").str().unwrap_or("balanced")
}

/// The tier that the report names; balanced if its name is unknown.
pub(super) fn stated_tier(report: Node<'_>) -> Tier {
    tier_name(report).parse().unwrap_or(Tier::Balanced)
}

impl Check<'_> {
    /// The tier of the gates: the required one, otherwise the report's. Every place of the report that names a tier must agree.
    pub(super) fn tier(&mut self) -> Tier {
        let report = self.report;
        let named = tier_name(report);
        for path in [
            "context.auto.tier",
            "policy_provenance.tier",
            "provenance.policy.tier",
            "policy_digest.tier_policy_name",
            "assurance.tier",
            "dataset.windows.stats.coverage.tier",
        ] {
            let recorded = report.at(path);
            if recorded.str().is_some_and(|other| other != named) {
                self.mismatch(format!("{path} mismatch: recorded {recorded}, auto.tier is {named:?}"));
            }
        }
        if let Err(why) = named.parse::<Tier>() {
            self.fail(format!("auto.tier: {why}"));
        }
        let tier = self.stated_tier;
        if let Some(required) = self.options.tier.filter(|required| *required != tier) {
            self.fail(format!("auto.tier is {tier}, the verifier requires {required}"));
            return required;
        }
        tier
    }

    /// Recorded thresholds must be those of the tables for the stated tier, or tighter.
    pub(super) fn policies(&mut self) {
        let (report, tier) = (self.report, self.stated_tier);
        if !self.gated() {
            return;
        }
        if tiny_relax(report) {
            self.fail(
                "tiny_relax is set in the report: it disables gates; measure again without it".to_owned(),
            );
        }
        self.metric_policy(tier);
        self.drift_bands();
        for flag in ["primary_metric.invalid", "primary_metric.degraded"] {
            if truthy(report.at(flag)) {
                self.fail(format!("{flag} is set: the metric cannot be gated on"));
            }
        }
    }

    fn metric_policy(&mut self, tier: Tier) {
        let report = self.report;
        let policy = report.at("resolved_policy.metrics");
        let (ratio, tail) = (policy.get("pm_ratio"), policy.get("pm_tail"));
        for (recorded, limit) in [
            (ratio.get("ratio_limit_base"), tier.ratio_limit()),
            (ratio.get("hysteresis_ratio"), HYSTERESIS_RATIO),
            (ratio.get("min_tokens_tolerance"), MIN_TOKENS_TOLERANCE),
            (tail.get("quantile_max"), tier.tail_quantile_max()),
            (tail.get("epsilon"), TAIL_EPSILON),
            (tail.get("mass_max"), TAIL_MASS_MAX),
            (tail.get("min_windows"), TAIL_MIN_WINDOWS as f64),
        ] {
            self.at_most(recorded, limit, tier);
        }
        for (recorded, floor) in
            [(ratio.get("min_tokens"), tier.min_tokens() as f64), (tail.get("quantile"), TAIL_QUANTILE)]
        {
            if !recorded.is_null() && float(recorded).is_none_or(|value| value < floor) {
                let path = recorded.path();
                self.fail(format!("{path} is {recorded}, looser than {floor} of the {tier} tier"));
            }
        }
        for range in ["meta.pm_acceptance_range", "context.primary_metric.acceptance_range"] {
            self.at_most(report.at(range).get("max"), tier.ratio_limit(), tier);
        }
    }

    fn drift_bands(&mut self) {
        let profile = self.options.profile;
        let (low, high) = profile.drift_band();
        for path in ["primary_metric.drift_band", "meta.pm_drift_band", "context.primary_metric.drift_band"] {
            let recorded = self.report.at(path);
            if recorded.is_null() || recorded.object().is_some_and(Map::is_empty) {
                continue;
            }
            if band(recorded).is_none_or(|(from, to)| from < low || to > high) {
                self.fail(format!(
                    "{path} is {recorded}, wider than {low} to {high} of the {profile} profile"
                ));
            }
        }
    }

    fn at_most(&mut self, recorded: Node<'_>, limit: f64, tier: Tier) {
        if !recorded.is_null() && float(recorded).is_none_or(|value| value > limit + 1e-12) {
            let path = recorded.path();
            self.fail(format!("{path} is {recorded}, looser than {limit} of the {tier} tier"));
        }
    }
}
