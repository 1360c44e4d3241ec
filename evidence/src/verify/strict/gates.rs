//! The gates, and the flags that must follow from the numbers.

use super::{Arm, Check};
use crate::compare::derive;
use crate::format::evaluation_report::Validation;
use crate::format::to_value;
use crate::format::untrusted::Node;
use crate::gates;
use crate::guards::{self, Finding, Guard};
use crate::policy::{BOOTSTRAP_METHOD, CI_BAND, GUARD_OVERHEAD_MAX, Profile, Tier};
use crate::verify::RuntimeProvenance;
use crate::verify::python::{float, int, pair, truthy};
use serde_json::json;

impl Check<'_> {
    /// The gates, from recomputed numbers where there are any, and the flags the report states.
    pub(super) fn gates(&mut self, tier: Tier, numbers: Option<Numbers<'_>>) {
        let report = self.report;
        let profile = self.options.profile;
        let validation = &report["validation"];
        for guard in guards::TABLE.iter().filter(|guard| guard.evaluate.is_some()) {
            self.guard(tier, guard);
        }
        if let Some(numbers) = &numbers {
            self.numbers(tier, numbers);
        }
        let evaluated = |guard: &str| {
            let block = &report[guard];
            block.is_object() && block.get("evaluated").is_none_or(truthy)
        };
        let mut required = vec!["primary_metric_acceptable", "preview_final_drift_acceptable"];
        for guard in &guards::TABLE {
            let name = guard.name;
            let flag = guard.gate.as_ref().map(|gate| gate.flag);
            if guard.evaluate.is_some() {
                // Checked above; its flag is required in any case.
                required.extend(flag);
            } else if evaluated(name) {
                required.extend(flag);
                self.guard(tier, guard);
            } else if profile.needs_all_guards() {
                self.fail(format!("{name} was not evaluated; profile {profile} needs every guard"));
            } else {
                self.not(format!("{name}: the guard was not evaluated, so nothing is known of it"));
            }
        }
        let overhead = &report["guard_overhead"];
        if overhead["evaluated"] == json!(true) {
            required.push("guard_overhead_acceptable");
            if self.gated()
                && float(&overhead["overhead_ratio"]).is_some_and(|ratio| ratio > GUARD_OVERHEAD_MAX)
            {
                self.gate(format!(
                    "guard_overhead.overhead_ratio is {}, above {GUARD_OVERHEAD_MAX}",
                    overhead["overhead_ratio"]
                ));
            }
        }
        if report["primary_metric_tail"]["evaluated"] == json!(true) {
            required.push("primary_metric_tail_acceptable");
        }
        let computed = self.own_flags(tier, numbers.as_ref());
        for flag in required.into_iter().filter(|flag| gates::decides(profile, flag)) {
            let recorded = &validation[flag];
            let text = format!("validation.{flag} is {recorded}, the {profile} profile needs true");
            match recorded.as_bool() {
                Some(true) => {}
                // A flag that its numbers contradict is no result but a fault of the evidence.
                Some(false) if computed.get(flag) != Some(true) => self.gate(text),
                Some(false) => self.fail(format!("{text}; its numbers say true")),
                None if self.gated() => self.fail(text),
                None => {}
            }
        }
        if self.options.runtime_provenance == RuntimeProvenance::Host {
            self.not("runtime provenance: it was not asked for (--runtime-provenance host)".to_owned());
        }
        self.not("losses: they need the weights and the evaluator".to_owned());
    }

    /// The findings of one guard.
    fn guard(&mut self, tier: Tier, guard: &Guard) {
        let block = guard.block(Node::root("", self.report));
        let check = guards::Check { block, ours: self.ours, profile: self.options.profile, tier };
        for finding in (guard.verify)(&check) {
            match finding {
                Finding::Gate(text) => self.gate(text),
                Finding::Failure(text) => self.fail(text),
                Finding::Mismatch(text) => self.mismatch(text),
                Finding::Recomputed(text) => self.yes(text),
                Finding::NotRecomputed(text) => self.not(text),
            }
        }
    }

    /// The flags of `validation` under the report's own profile, where they can be computed.
    pub(super) fn own_flags(&self, tier: Tier, numbers: Option<&Numbers<'_>>) -> Validation {
        let Some((numbers, ratio)) = numbers.and_then(|numbers| Some((numbers, numbers.ratio?))) else {
            return Validation::default();
        };
        let own = gates::profile(self.report);
        let guards = guards::stated_flags(Node::root("", self.report));
        derive::validation(own, tier, ratio, numbers.drift, numbers.enough(tier), &guards)
    }

    pub(super) fn numbers(&mut self, tier: Tier, numbers: &Numbers<'_>) {
        let report = self.report;
        let profile = self.options.profile;
        let (preview, last) = (numbers.preview, numbers.last);
        let tokens = numbers.tokens();
        let enough = numbers.enough(tier);
        if let Some(ratio) = numbers.ratio.filter(|ratio| *ratio > tier.ratio_gate())
            && gates::decides(profile, "primary_metric_acceptable")
        {
            let limit = tier.ratio_gate();
            self.gate(format!(
                "perplexity ratio {ratio:.6} is above {limit:.3}, the limit of the {tier} tier"
            ));
        }
        if self.gated() {
            let (low, high) = profile.drift_band();
            if !(low..=high).contains(&numbers.drift) {
                let drift = numbers.drift;
                self.gate(format!(
                    "final/preview perplexity {drift:.6} is outside {low} to {high} ({profile} profile)"
                ));
            }
            if !enough {
                let needed = tier.min_tokens();
                self.gate(format!("{tokens} tokens were measured, the {tier} tier needs {needed}"));
            }
            let floor = tier.coverage();
            if preview.ids.len() < floor.preview || last.ids.len() < floor.final_ {
                let (one, other) = (preview.ids.len(), last.ids.len());
                let (need, also) = (floor.preview, floor.final_);
                self.fail(format!(
                    "{one} + {other} windows were measured, the {tier} tier needs {need} + {also}"
                ));
            }
            self.yes("ratio, drift, token and window gates, with the thresholds of the tables");
        }
        if !self.ours {
            return;
        }
        // Flags and labels that follow from the numbers under the report's own profile.
        let own = report["context"]["profile"].as_str().unwrap_or_default();
        let Ok(own) = own.parse::<Profile>() else {
            return self.mismatch(format!("context.profile mismatch: {own:?} is no profile"));
        };
        for (place, recorded) in [
            ("meta.profile", &report["meta"]["profile"]),
            ("assurance.profile", &report["assurance"]["profile"]),
        ] {
            self.same(place, recorded, &json!(own.as_str()));
        }
        self.constants(own);
        let guards = guards::stated_flags(Node::root("", report));
        let Some(ratio) = numbers.ratio else { return };
        let flags = derive::validation(own, tier, ratio, numbers.drift, enough, &guards);
        let acceptable = flags.get("primary_metric_acceptable") == Some(true);
        let passed = gates::all_true(own, &flags);
        self.same("validation", &report["validation"], &to_value(&flags));
        let verdict = json!(if passed { "pass" } else { "fail" });
        self.same("assurance.verdict", &report["assurance"]["verdict"], &verdict);
        let replicates = int(&report["primary_metric"]["reps"]).unwrap_or_default() as usize;
        let unstable = derive::unstable(replicates, enough);
        self.same("primary_metric.unstable", &report["primary_metric"]["unstable"], &json!(unstable));
        if let Some((low, high)) = pair(&report["primary_metric"]["display_ci"]) {
            let confidence = to_value(&derive::confidence(high - low, acceptable, unstable));
            self.alike("confidence", &report["confidence"], &confidence);
        }
        let coverage = to_value(&derive::coverage(tier, preview.ids.len(), last.ids.len(), replicates));
        let stats = &report["dataset"]["windows"]["stats"];
        self.alike("dataset.windows.stats.coverage", &stats["coverage"], &coverage);
        self.alike("dataset.windows.stats.bootstrap.coverage", &stats["bootstrap"]["coverage"], &coverage);
        self.yes("validation flags and confidence");
    }

    /// What this crate writes the same into every report of a profile.
    pub(super) fn constants(&mut self, profile: Profile) {
        let report = self.report;
        let (low, high) = profile.drift_band();
        let band = json!({"min": low, "max": high});
        let stats = json!({
            "bootstrap": {
                "enabled": true,
                "method": BOOTSTRAP_METHOD,
                "ci_band": CI_BAND,
                "window_duplicate_fraction": 0.0,
                "window_match_fraction": 1.0,
            },
            "window_match_fraction": 1.0,
            "window_overlap_fraction": 0.0,
            "pairing": "paired_baseline",
        });
        let metric = json!({
            "unit": "ppl",
            "direction": "lower",
            "aggregation_scope": "token",
            "paired": true,
            "gating_basis": "upper",
            "supports_bootstrap": true,
            "analysis_basis": "mean_logloss",
            "invalid": false,
            "degraded": false,
            "drift_band": band,
        });
        for (place, recorded, expected) in [
            ("meta.pm_drift_band", &report["meta"]["pm_drift_band"], &band),
            ("context.primary_metric.drift_band", &report["context"]["primary_metric"]["drift_band"], &band),
            ("dataset.windows.stats", &report["dataset"]["windows"]["stats"], &stats),
            ("primary_metric", &report["primary_metric"], &metric),
            (
                "baseline_ref.primary_metric.kind",
                &report["baseline_ref"]["primary_metric"]["kind"],
                &json!("ppl_causal"),
            ),
            (
                "dataset.hash.source",
                &report["dataset"]["hash"]["source"],
                &json!("explicit_preview_final_hashes"),
            ),
        ] {
            self.alike(place, recorded, expected);
        }
    }
}

/// What the gates are decided on.
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
