//! Tier and thresholds: those of the tables, or tighter.

use super::Check;
use crate::format::to_value;
use crate::numerics::digest;
use crate::policy::{
    HYSTERESIS_RATIO, MIN_TOKENS_TOLERANCE, TAIL_EPSILON, TAIL_MASS_MAX, TAIL_MIN_WINDOWS, TAIL_QUANTILE,
    Tier,
};
use crate::verify::python::{float, truthy};
use crate::verify::upstream::{band, tiny_relax};
use serde_json::{Map, Value, json};

impl Check<'_> {
    /// The report's tier, named the same everywhere.
    pub(super) fn tier(&mut self) -> Tier {
        let report = self.report;
        let named = report["auto"]["tier"].as_str().unwrap_or("balanced");
        for (place, value) in [
            ("context.auto.tier", &report["context"]["auto"]["tier"]),
            ("policy_provenance.tier", &report["policy_provenance"]["tier"]),
            ("provenance.policy.tier", &report["provenance"]["policy"]["tier"]),
            ("policy_digest.tier_policy_name", &report["policy_digest"]["tier_policy_name"]),
            ("assurance.tier", &report["assurance"]["tier"]),
            (
                "dataset.windows.stats.coverage.tier",
                &report["dataset"]["windows"]["stats"]["coverage"]["tier"],
            ),
        ] {
            if value.as_str().is_some_and(|other| other != named) {
                self.mismatch(format!("{place} mismatch: it is {value}, auto.tier is {named:?}"));
            }
        }
        let tier = named.parse::<Tier>();
        if let Err(why) = &tier {
            self.fail(format!("auto.tier: {why}"));
        }
        let tier = tier.unwrap_or(Tier::Balanced);
        if let Some(demanded) = self.options.tier.filter(|demanded| *demanded != tier) {
            self.fail(format!("auto.tier is {tier}, the verifier demands {demanded}"));
            return demanded;
        }
        tier
    }

    /// Recorded thresholds must be those of the tables, or tighter.
    pub(super) fn policies(&mut self, tier: Tier) {
        let report = self.report;
        if !self.gated() {
            return;
        }
        if tiny_relax(report) {
            self.fail(
                "tiny_relax is set in the report: it switches gates off; measure without it".to_owned(),
            );
        }
        let policy = &report["resolved_policy"]["metrics"];
        let (ratio, tail) = (&policy["pm_ratio"], &policy["pm_tail"]);
        let base = "resolved_policy.metrics";
        for (place, recorded, limit) in [
            (format!("{base}.pm_ratio.ratio_limit_base"), &ratio["ratio_limit_base"], tier.ratio_limit()),
            (format!("{base}.pm_ratio.hysteresis_ratio"), &ratio["hysteresis_ratio"], HYSTERESIS_RATIO),
            (
                format!("{base}.pm_ratio.min_tokens_tolerance"),
                &ratio["min_tokens_tolerance"],
                MIN_TOKENS_TOLERANCE,
            ),
            (format!("{base}.pm_tail.quantile_max"), &tail["quantile_max"], tier.tail_quantile_max()),
            (format!("{base}.pm_tail.epsilon"), &tail["epsilon"], TAIL_EPSILON),
            (format!("{base}.pm_tail.mass_max"), &tail["mass_max"], TAIL_MASS_MAX),
            (format!("{base}.pm_tail.min_windows"), &tail["min_windows"], TAIL_MIN_WINDOWS as f64),
        ] {
            self.at_most(&place, recorded, limit, tier);
        }
        for (place, recorded, floor) in [
            (format!("{base}.pm_ratio.min_tokens"), &ratio["min_tokens"], tier.min_tokens() as f64),
            (format!("{base}.pm_tail.quantile"), &tail["quantile"], TAIL_QUANTILE),
        ] {
            if !recorded.is_null() && float(recorded).is_none_or(|value| value < floor) {
                self.fail(format!("{place} is {recorded}, looser than {floor} of the {tier} tier"));
            }
        }
        for (place, range) in [
            ("meta.pm_acceptance_range", &report["meta"]["pm_acceptance_range"]),
            (
                "context.primary_metric.acceptance_range",
                &report["context"]["primary_metric"]["acceptance_range"],
            ),
        ] {
            self.at_most(&format!("{place}.max"), &range["max"], tier.ratio_limit(), tier);
        }
        let (low, high) = self.options.profile.drift_band();
        for (place, recorded) in [
            ("primary_metric.drift_band", &report["primary_metric"]["drift_band"]),
            ("meta.pm_drift_band", &report["meta"]["pm_drift_band"]),
            ("context.primary_metric.drift_band", &report["context"]["primary_metric"]["drift_band"]),
        ] {
            if recorded.is_null() || recorded.as_object().is_some_and(Map::is_empty) {
                continue;
            }
            if band(recorded).is_none_or(|(from, to)| from < low || to > high) {
                let profile = self.options.profile;
                self.fail(format!(
                    "{place} is {recorded}, wider than {low} to {high} of the {profile} profile"
                ));
            }
        }
        let metric = &report["primary_metric"];
        for flag in ["invalid", "degraded"] {
            if truthy(&metric[flag]) {
                self.fail(format!("primary_metric.{flag} is set: the metric cannot be gated on"));
            }
        }
        if self.ours {
            let resolved = json!({"resolved_policy": report["resolved_policy"], "overrides": []});
            let expected = json!(digest::spaced_json_hash(&resolved));
            for (place, recorded) in [
                ("policy_provenance.policy_digest", &report["policy_provenance"]["policy_digest"]),
                ("auto.policy_digest", &report["auto"]["policy_digest"]),
                ("provenance.policy.policy_digest", &report["provenance"]["policy"]["policy_digest"]),
            ] {
                self.same(place, recorded, &expected);
            }
            let thresholds = json!(digest::compact_json_hash(&to_value(&tier.metrics_policy())));
            self.same(
                "policy_digest.thresholds_hash",
                &report["policy_digest"]["thresholds_hash"],
                &thresholds,
            );
            self.same(base, policy, &to_value(&tier.metrics_policy()));
            self.yes("policy digests, from the tables");
        }
    }

    pub(super) fn at_most(&mut self, place: &str, recorded: &Value, limit: f64, tier: Tier) {
        if !recorded.is_null() && float(recorded).is_none_or(|value| value > limit + 1e-12) {
            self.fail(format!("{place} is {recorded}, looser than {limit} of the {tier} tier"));
        }
    }
}
