//! The gates, and the flags that must follow from the numbers.

use super::{Arm, Check};
use crate::compare::{derive, invariants};
use crate::gates;
use crate::policy::{BOOTSTRAP_METHOD, CI_BAND, GUARD_OVERHEAD_MAX, Profile, Tier};
use crate::verify::RuntimeProvenance;
use crate::verify::python::{float, int, pair, truthy};
use serde_json::{Map, Value, json};

impl Check<'_> {
    /// The gates, from recomputed numbers where there are any, and the flags the report states.
    pub(super) fn gates(&mut self, tier: Tier, numbers: Option<Numbers<'_>>) {
        let report = self.report;
        let profile = self.options.profile;
        let validation = &report["validation"];
        self.invariants();
        if let Some(numbers) = &numbers {
            self.numbers(tier, numbers);
        }
        let evaluated = |guard: &str| {
            let block = &report[guard];
            block.is_object() && block.get("evaluated").is_none_or(truthy)
        };
        let mut required =
            vec!["primary_metric_acceptable", "preview_final_drift_acceptable", "invariants_pass"];
        for (guard, flag) in
            [("spectral", Some("spectral_stable")), ("rmt", Some("rmt_stable")), ("variance", None)]
        {
            if !evaluated(guard) {
                if profile.needs_all_guards() {
                    self.fail(format!("{guard} was not evaluated; profile {profile} needs every guard"));
                } else {
                    self.not(format!("{guard}: the guard was not evaluated, so nothing is known of it"));
                }
            } else if let Some(flag) = flag {
                required.push(flag);
                self.not(format!("{guard}: its numbers need the weights"));
            }
        }
        if evaluated("spectral") {
            let spectral = &report["spectral"];
            let caps = tier.spectral_caps();
            let applied = int(&spectral["caps_applied"]).unwrap_or(0);
            if self.gated() && (applied > caps || truthy(&spectral["caps_exceeded"])) {
                self.gate(format!("spectral.caps_applied is {applied}, the {tier} tier allows {caps}"));
            }
        }
        if self.gated() && evaluated("rmt") && report["rmt"]["stable"] == json!(false) {
            self.gate("rmt.stable is false".to_owned());
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
                Some(false) if computed.get(flag) != Some(&json!(true)) => self.gate(text),
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

    /// The flags of `validation` under the report's own profile, where they can be computed.
    pub(super) fn own_flags(&self, tier: Tier, numbers: Option<&Numbers<'_>>) -> Map<String, Value> {
        let Some((numbers, ratio)) = numbers.and_then(|numbers| Some((numbers, numbers.ratio?))) else {
            return Map::new();
        };
        let own = gates::profile(self.report);
        let status = self.report["invariants"]["status"].as_str();
        derive::validation(own, tier, ratio, numbers.drift, numbers.enough(tier), status)
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
        let status = report["invariants"]["status"].as_str();
        let Some(ratio) = numbers.ratio else { return };
        let flags = derive::validation(own, tier, ratio, numbers.drift, enough, status);
        let acceptable = flags["primary_metric_acceptable"] == json!(true);
        let passed = gates::all_true(own, &flags);
        self.same("validation", &report["validation"], &Value::Object(flags));
        let verdict = json!(if passed { "pass" } else { "fail" });
        self.same("assurance.verdict", &report["assurance"]["verdict"], &verdict);
        let replicates = int(&report["primary_metric"]["reps"]).unwrap_or_default() as usize;
        let unstable = derive::unstable(replicates, enough);
        self.same("primary_metric.unstable", &report["primary_metric"]["unstable"], &json!(unstable));
        if let Some((low, high)) = pair(&report["primary_metric"]["display_ci"]) {
            let confidence = derive::confidence(high - low, acceptable, unstable);
            self.alike("confidence", &report["confidence"], &confidence);
        }
        let coverage = derive::coverage(tier, preview.ids.len(), last.ids.len(), replicates);
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

    /// The invariants block against the checks it holds of both sides.
    pub(super) fn invariants(&mut self) {
        let report = self.report;
        let block = &report["invariants"];
        if self.gated() && !block.is_object() {
            return self.fail("invariants: the block is missing".to_owned());
        }
        let status = block["status"].as_str().unwrap_or_default();
        if matches!(status, "fail" | "error") && gates::decides(self.options.profile, "invariants_pass") {
            self.gate(format!(
                "invariants.status is {status:?}: the subject is not built as the baseline is"
            ));
        } else if self.gated() && !matches!(status, "pass" | "warn") {
            self.fail(format!("invariants.status is {status:?}: it must be pass, warn or fail"));
        }
        let details = &block["details"];
        let checks = details["baseline_checks"].as_object().zip(details["current_checks"].as_object());
        let Some((before, after)) = checks else {
            if self.gated() {
                self.fail("invariants.details holds no checks of both sides".to_owned());
            }
            return;
        };
        let expected = invariants::compare(before, after);
        let recorded = block["failures"].as_array().cloned().unwrap_or_default();
        for failure in &expected {
            let listed =
                recorded.iter().any(|row| row["check"] == failure["check"] && row["type"] == failure["type"]);
            if !listed {
                let message = failure["message"].as_str().unwrap_or_default();
                self.mismatch(format!("invariants.failures mismatch: the recorded checks differ, {message}"));
            }
        }
        if !self.ours {
            return;
        }
        let fatal = recorded.iter().chain(&expected).any(invariants::is_fatal);
        let computed = match (fatal, recorded.is_empty() && expected.is_empty()) {
            (true, _) => "fail",
            (false, true) => "pass",
            (false, false) => "warn",
        };
        for name in ["status", "post"] {
            self.same(&format!("invariants.{name}"), &block[name], &json!(computed));
        }
        self.same("invariants.passed", &block["passed"], &json!(computed != "fail"));
        self.yes("the invariants of both sides, from the checks they state");
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
