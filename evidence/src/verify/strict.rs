//! Our own checks: everything that follows from raw losses is computed again, and thresholds come from the tables of
//! [`crate::policy`], not from the report (`spec/verify.md` section 8 lists what upstream leaves open).

use super::python::{float, int, pair, truthy};
use super::upstream::{band, tiny_relax};
use super::{RuntimeProvenance, VerifyOptions};
use crate::compare::{GENERATOR, derive, invariants};
use crate::gates;
use crate::numerics::bootstrap::Method;
use crate::numerics::digest;
use crate::numerics::stats::weighted_mean;
use crate::policy::{
    ALPHA, BOOTSTRAP_METHOD, CI_BAND, HYSTERESIS_RATIO, MIN_TOKENS_TOLERANCE, Profile, TAIL_EPSILON,
    TAIL_MASS_MAX, TAIL_MIN_WINDOWS, TAIL_QUANTILE, Tier,
};
use crate::run_report::RunReport;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Work a report may ask of its verifier: windows of one arm times bootstrap replicates.
const MAX_DRAWS: usize = 200_000_000;

/// What the strict checks find.
#[derive(Default)]
pub(super) struct Found {
    /// Values that contradict each other or their recomputation.
    pub(super) mismatches: Vec<String>,
    /// Gates that the subject fails, by recomputed numbers.
    pub(super) gates: Vec<String>,
    /// Policies that are looser than the tables, and evidence that is missing.
    pub(super) failures: Vec<String>,
    pub(super) recomputed: Vec<String>,
    pub(super) not_recomputed: Vec<String>,
}

/// Losses and weights of one arm.
#[derive(Debug, Clone, PartialEq)]
struct Arm {
    ids: Vec<u64>,
    losses: Vec<f64>,
    counts: Vec<u64>,
}

impl Arm {
    fn read(value: &Value, place: &str) -> Result<Self, String> {
        let list = |name: &str| {
            value[name].as_array().ok_or_else(|| format!("{place}.{name} is missing or no list"))
        };
        let whole = |name: &str| -> Result<Vec<u64>, String> {
            let bad = |i: usize| format!("{place}.{name}[{i}] is no whole number below 2^32");
            let below = |value: &Value| value.as_u64().filter(|number| *number < 1 << 32);
            list(name)?.iter().enumerate().map(|(i, value)| below(value).ok_or_else(|| bad(i))).collect()
        };
        let losses = list("logloss")?
            .iter()
            .enumerate()
            .map(|(i, value)| value.as_f64().ok_or_else(|| format!("{place}.logloss[{i}] is no number")))
            .collect::<Result<Vec<f64>, String>>()?;
        let arm = Arm { ids: whole("window_ids")?, losses, counts: whole("token_counts")? };
        if arm.ids.is_empty() || arm.ids.len() != arm.losses.len() || arm.ids.len() != arm.counts.len() {
            return Err(format!(
                "{place} has {} window_ids, {} losses and {} token_counts; they must be equally many and not none",
                arm.ids.len(),
                arm.losses.len(),
                arm.counts.len()
            ));
        }
        Ok(arm)
    }

    fn of(arm: &crate::run_report::WindowArm) -> Self {
        Arm { ids: arm.window_ids.clone(), losses: arm.logloss.clone(), counts: arm.token_counts.clone() }
    }

    fn mean(&self) -> Option<f64> {
        weighted_mean(&self.losses, &self.counts)
    }

    fn tokens(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

struct Check<'a> {
    report: &'a Value,
    options: &'a VerifyOptions,
    /// Whether the report says that this crate made it; it must then have all that this crate writes.
    ours: bool,
    found: Found,
}

/// Runs all checks. `baseline` is the run report given with `--baseline`, with the SHA-256 of its bytes.
pub(super) fn check(report: &Value, options: &VerifyOptions, baseline: Option<(&RunReport, &str)>) -> Found {
    let ours = report["report_build"]["generator"]["name"] == json!(GENERATOR);
    let mut check = Check { report, options, ours, found: Found::default() };
    let tier = check.tier();
    check.policies(tier);
    if report["primary_metric"]["kind"] != json!("ppl_causal") {
        let kind = report["primary_metric"]["kind"].as_str().unwrap_or_default();
        check.not(format!("primary_metric of kind {kind}: only ppl_causal is computed again"));
        check.gates(tier, None);
        return check.found;
    }
    check.metric(tier, baseline);
    check.found
}

impl Check<'_> {
    fn mismatch(&mut self, text: String) {
        self.found.mismatches.push(text);
    }

    fn fail(&mut self, text: String) {
        self.found.failures.push(text);
    }

    fn gate(&mut self, text: String) {
        self.found.gates.push(text);
    }

    fn not(&mut self, text: String) {
        self.found.not_recomputed.push(text);
    }

    fn yes(&mut self, text: impl Into<String>) {
        self.found.recomputed.push(text.into());
    }

    fn gated(&self) -> bool {
        self.options.profile.gated()
    }

    /// A recorded number against the recomputed one.
    fn number(&mut self, place: &str, recorded: &Value, computed: f64) {
        let tolerance = self.options.tolerance.max(1e-12) * computed.abs().max(1.0);
        match recorded.as_f64() {
            Some(value) if (value - computed).abs() <= tolerance => {}
            Some(value) => {
                self.mismatch(format!("{place} mismatch: recorded {value}, its raw values give {computed}"))
            }
            None => {
                self.mismatch(format!("{place} mismatch: it is not recorded, its raw values give {computed}"))
            }
        }
    }

    /// A recorded value against what it must be.
    fn same(&mut self, place: &str, recorded: &Value, computed: &Value) {
        let equal_numbers = recorded.as_f64().zip(computed.as_f64()).is_some_and(|(one, other)| one == other);
        if recorded != computed && !equal_numbers {
            self.mismatch(format!("{place} mismatch: recorded {recorded}, it must be {computed}"));
        }
    }

    /// The report's tier, named the same everywhere.
    fn tier(&mut self) -> Tier {
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
    fn policies(&mut self, tier: Tier) {
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
            let thresholds = json!(digest::compact_json_hash(&tier.metrics_policy()));
            self.same(
                "policy_digest.thresholds_hash",
                &report["policy_digest"]["thresholds_hash"],
                &thresholds,
            );
            self.same(base, policy, &tier.metrics_policy());
            self.yes("policy digests, from the tables");
        }
    }

    fn at_most(&mut self, place: &str, recorded: &Value, limit: f64, tier: Tier) {
        if !recorded.is_null() && float(recorded).is_none_or(|value| value > limit + 1e-12) {
            self.fail(format!("{place} is {recorded}, looser than {limit} of the {tier} tier"));
        }
    }

    fn metric(&mut self, tier: Tier, baseline: Option<(&RunReport, &str)>) {
        let report = self.report;
        let windows = &report["evaluation_windows"];
        let arms = [("preview", "evaluation_windows.preview"), ("final", "evaluation_windows.final")]
            .map(|(name, place)| Arm::read(&windows[name], place));
        let (preview, last) = match arms {
            [Ok(preview), Ok(last)] => (preview, last),
            [one, other] => {
                for why in [one.err(), other.err()].into_iter().flatten() {
                    if self.gated() || self.ours {
                        self.fail(format!("nothing can be recomputed: {why}"));
                    } else {
                        self.not(format!("losses: {why}"));
                    }
                }
                self.gates(tier, None);
                return;
            }
        };
        self.windows(&preview, &last);
        let metric = &report["primary_metric"];
        let means =
            preview.mean().zip(last.mean()).filter(|(one, other)| one.exp() > 0.0 && other.exp().is_finite());
        let Some((first, final_)) = means.filter(|(first, _)| first.exp().is_finite()) else {
            self.mismatch("evaluation_windows mismatch: the losses have no finite perplexity".to_owned());
            return;
        };
        self.number("primary_metric.final", &metric["final"], final_.exp());
        self.number("primary_metric.preview", &metric["preview"], first.exp());
        for (place, key, mean) in [
            ("primary_metric.analysis_point_final", "analysis_point_final", final_),
            ("primary_metric.analysis_point_preview", "analysis_point_preview", first),
        ] {
            if self.ours || !metric[key].is_null() {
                self.number(place, &metric[key], mean);
            }
        }
        self.yes("preview and final perplexity of the subject, from its losses");
        let summary = &report["dataset"]["windows"]["stats"]["paired_delta_summary"];
        if self.ours && preview.losses.len() == last.losses.len() {
            let computed =
                derive::drift_summary((&preview.losses, &preview.counts), (&last.losses, &last.counts));
            self.alike("dataset.windows.stats.paired_delta_summary", summary, &computed);
        }
        let ratio = self.pair(tier, &preview, &last, final_, baseline);
        self.gates(
            tier,
            Some(Numbers { ratio, drift: final_.exp() / first.exp(), preview: &preview, last: &last }),
        );
    }

    /// Counts, ids and digests of the windows.
    fn windows(&mut self, preview: &Arm, last: &Arm) {
        let report = self.report;
        let dataset = &report["dataset"];
        let (windows, stats) = (&dataset["windows"], &dataset["windows"]["stats"]);
        let telemetry = &report["telemetry"];
        let sizes = [("preview", preview), ("final", last)];
        for (name, arm) in sizes {
            let n = json!(arm.ids.len());
            self.same(&format!("dataset.windows.{name}"), &windows[name], &n);
            let actual = format!("actual_{name}");
            if self.ours || !stats[&actual].is_null() {
                self.same(&format!("dataset.windows.stats.{actual}"), &stats[&actual], &n);
            }
            let used = &stats["coverage"][name]["used"];
            self.same(&format!("dataset.windows.stats.coverage.{name}.used"), used, &n);
            let tokens = json!(arm.tokens());
            for (place, recorded) in [
                (format!("telemetry.{name}_total_tokens"), &telemetry[format!("{name}_total_tokens")]),
                (format!("dataset.hash.{name}_tokens"), &dataset["hash"][format!("{name}_tokens")]),
            ] {
                if self.ours || !recorded.is_null() {
                    self.same(&place, recorded, &tokens);
                }
            }
            if let Some((i, loss)) = arm.losses.iter().enumerate().find(|(_, loss)| **loss < -1e-6) {
                let place = format!("evaluation_windows.{name}.logloss[{i}]");
                self.mismatch(format!("{place} mismatch: it is {loss}, a cross-entropy is not negative"));
            }
        }
        self.same("dataset.windows.stats.paired_windows", &stats["paired_windows"], &json!(last.ids.len()));
        let total = &dataset["hash"]["total_tokens"];
        if self.ours || !total.is_null() {
            self.same(
                "dataset.hash.total_tokens",
                total,
                &json!(preview.tokens().saturating_add(last.tokens())),
            );
        }
        let mut seen = HashSet::new();
        if let Some(id) = preview.ids.iter().chain(&last.ids).find(|id| !seen.insert(**id)) {
            self.mismatch(format!("evaluation_windows window_ids mismatch: {id} is there twice"));
        }
        let provenance = &report["provenance"];
        let ids = json!(digest::window_ids_digest(preview.ids.iter().chain(&last.ids).copied()));
        let recorded = &provenance["provider_digest"]["ids_sha256"];
        if self.ours || !recorded.is_null() {
            self.same("provenance.provider_digest.ids_sha256", recorded, &ids);
        }
        let schedule = json!(digest::schedule_digest(&last.ids));
        for name in ["window_ids_digest", "window_plan_digest"] {
            if self.ours || !provenance[name].is_null() {
                self.same(&format!("provenance.{name}"), &provenance[name], &schedule);
            }
        }
        let tokenizers = [
            (
                "provenance.provider_digest.tokenizer_sha256",
                &provenance["provider_digest"]["tokenizer_sha256"],
            ),
            ("dataset.tokenizer.hash", &dataset["tokenizer"]["hash"]),
            ("baseline_ref.tokenizer_hash", &report["baseline_ref"]["tokenizer_hash"]),
        ];
        let named = &report["meta"]["tokenizer_hash"];
        for (place, recorded) in tokenizers {
            if !recorded.is_null() && recorded != named {
                self.mismatch(format!("{place} mismatch: it is {recorded}, meta.tokenizer_hash is {named}"));
            }
        }
        self.yes("window counts, tokens and id digests");
        self.tokens(preview, last);
    }

    /// Token ids, masks and labels against counts and the dataset's digest.
    fn tokens(&mut self, preview: &Arm, last: &Arm) {
        let report = self.report;
        let dataset = &report["dataset"];
        let Some(seq_len) = int(&dataset["seq_len"]) else { return };
        let mut hashes = Vec::new();
        for (name, arm) in [("preview", preview), ("final", last)] {
            let raw = &report["evaluation_windows"][name];
            let place = format!("evaluation_windows.{name}");
            let Some(windows) = raw["input_ids"].as_array().filter(|windows| !windows.is_empty()) else {
                if self.ours {
                    self.mismatch(format!("{place}.input_ids mismatch: they are missing"));
                }
                return self.not(format!("dataset.hash: {place} holds no token ids"));
            };
            let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
            let ids: Option<Vec<Vec<u32>>> =
                windows.iter().map(|window| window.as_array()?.iter().map(id).collect()).collect();
            let Some(ids) = ids else {
                return self.mismatch(format!("{place}.input_ids mismatch: no token ids"));
            };
            if ids.len() != arm.ids.len() || ids.iter().any(|window| window.len() as u64 != seq_len) {
                return self.mismatch(format!(
                    "{place}.input_ids mismatch: not one window of {seq_len} tokens each"
                ));
            }
            let masks = raw["attention_masks"].as_array();
            if masks.is_none_or(|masks| masks.len() != arm.ids.len()) {
                self.mismatch(format!("{place}.attention_masks mismatch: not one mask a window"));
            }
            for (i, mask) in masks.into_iter().flatten().enumerate() {
                let bits: Option<Vec<u64>> =
                    mask.as_array().map(|mask| mask.iter().map(|bit| bit.as_u64().unwrap_or(9)).collect());
                let bits =
                    bits.filter(|bits| bits.len() as u64 == seq_len && bits.iter().all(|bit| *bit < 2));
                let real = bits.as_ref().map(|bits| bits.iter().sum::<u64>());
                let Some(count) = arm.counts.get(i).filter(|count| Some(**count) != real) else { continue };
                let real = real.map_or_else(|| "no mask".to_owned(), |real| format!("{real} tokens"));
                self.mismatch(format!(
                    "{place}.token_counts[{i}] mismatch: it is {count}, its mask has {real}"
                ));
            }
            for other in ["masked_token_counts", "actual_token_counts"] {
                let counts = raw[other].as_array().filter(|counts| !counts.is_empty());
                if self.ours
                    && counts.is_some_and(|counts| {
                        counts.iter().ne(arm.counts.iter().map(|c| json!(c)).collect::<Vec<_>>().iter())
                    })
                {
                    self.mismatch(format!("{place}.{other} mismatch: they are not the token_counts"));
                }
            }
            hashes.push(digest::windows_hash(&ids));
        }
        if dataset["hash"]["source"] != json!("explicit_preview_final_hashes") {
            return self.not("dataset.hash: its source is no hash of the windows".to_owned());
        }
        let [first, second] = hashes.as_slice() else { return };
        let recorded = &dataset["hash"];
        self.same("dataset.hash.preview", &recorded["preview"], &json!(format!("blake2s:{first}")));
        self.same("dataset.hash.final", &recorded["final"], &json!(format!("blake2s:{second}")));
        self.same("dataset.hash.dataset", &recorded["dataset"], &json!(digest::dataset_hash(first, second)));
        self.yes("dataset digests, from the token ids");
    }

    /// Ratio, interval and tail, from the baseline's losses. Returns the ratio to gate on.
    fn pair(
        &mut self,
        tier: Tier,
        preview: &Arm,
        last: &Arm,
        final_mean: f64,
        baseline: Option<(&RunReport, &str)>,
    ) -> Option<f64> {
        let report = self.report;
        let metric = &report["primary_metric"];
        let embedded = &report["baseline_windows"];
        let mut known: Option<(Arm, Arm)> = None;
        if !embedded.is_null() || self.ours {
            let first = Arm::read(&embedded["preview"], "baseline_windows.preview");
            let second = Arm::read(&embedded["final"], "baseline_windows.final");
            match (first, second) {
                (Ok(first), Ok(second)) => known = Some((first, second)),
                (first, second) => {
                    for why in [first.err(), second.err()].into_iter().flatten() {
                        self.mismatch(format!("baseline_windows mismatch: {why}"));
                    }
                    return float(&metric["ratio_vs_baseline"]);
                }
            }
        }
        if let Some((run, sha256)) = baseline {
            let windows = &run.evaluation_windows;
            let given = (Arm::of(&windows.preview), Arm::of(&windows.final_));
            if known.as_ref().is_some_and(|known| *known != given) {
                self.mismatch(
                    "baseline_windows mismatch: they are not the losses of the run report given".to_owned(),
                );
            }
            if self.ours {
                let recorded = &report["provenance"]["baseline"]["report_sha256"];
                self.same("provenance.baseline.report_sha256", recorded, &json!(sha256));
            }
            let raw = &report["evaluation_windows"];
            for (name, arm) in [("preview", &windows.preview), ("final", &windows.final_)] {
                let same = raw[name]["input_ids"] == json!(arm.input_ids);
                if !same && !raw[name]["input_ids"].is_null() {
                    let place = format!("evaluation_windows.{name}.input_ids");
                    self.mismatch(format!(
                        "{place} mismatch: the baseline given was measured on other windows"
                    ));
                }
            }
            known = Some(given);
            self.yes("the baseline's losses, against the run report given");
        }
        let Some((base_preview, base_last)) = known else {
            let why = "the report holds no baseline losses; give the baseline's run report with --baseline";
            self.not(format!("ratio_vs_baseline, its interval and the baseline's perplexity: {why}"));
            return float(&metric["ratio_vs_baseline"]);
        };
        for (name, one, other) in [("preview", &base_preview, preview), ("final", &base_last, last)] {
            if one.ids != other.ids || one.counts != other.counts {
                self.mismatch(format!(
                    "baseline_windows.{name} mismatch: its window_ids or token_counts are not the subject's"
                ));
                return float(&metric["ratio_vs_baseline"]);
            }
        }
        let reference = &report["baseline_ref"]["primary_metric"];
        let Some(base_mean) = base_last.mean().filter(|mean| mean.is_finite() && mean.exp().is_finite())
        else {
            self.mismatch("baseline_windows.final mismatch: the losses have no finite perplexity".to_owned());
            return float(&metric["ratio_vs_baseline"]);
        };
        self.number("baseline_ref.primary_metric.final", &reference["final"], base_mean.exp());
        if let Some(mean) = base_preview.mean().filter(|_| self.ours) {
            self.number("baseline_ref.primary_metric.preview", &reference["preview"], mean.exp());
        }
        let ratio = final_mean.exp() / base_mean.exp();
        self.number("primary_metric.ratio_vs_baseline", &metric["ratio_vs_baseline"], ratio);
        if self.ours {
            self.number("quality_overhead.value", &report["quality_overhead"]["value"], ratio);
        }
        self.yes("ratio_vs_baseline, from the losses of both sides");
        self.interval(tier, last, &base_last);
        if self.ours {
            let computed = derive::tail(&last.losses, &base_last.losses, &last.counts, tier);
            self.alike("primary_metric_tail", &report["primary_metric_tail"], &computed);
        }
        Some(ratio)
    }

    fn interval(&mut self, tier: Tier, last: &Arm, base: &Arm) {
        let report = self.report;
        let metric = &report["primary_metric"];
        let stats = &report["dataset"]["windows"]["stats"];
        let settings = &stats["bootstrap"];
        let method = settings["method"].as_str().unwrap_or_default();
        let method = if method.contains("bca") { Method::Bca } else { Method::Percentile };
        let (replicates, seed) = (int(&settings["replicates"]), int(&settings["seed"]));
        let (Some(replicates), Some(seed)) = (replicates, seed) else {
            return self
                .mismatch("dataset.windows.stats.bootstrap mismatch: no replicates or seed".to_owned());
        };
        let replicates = usize::try_from(replicates).unwrap_or(usize::MAX);
        self.same("dataset.windows.stats.bootstrap.alpha", &settings["alpha"], &json!(ALPHA));
        if self.gated() && method != Method::Bca {
            self.fail("dataset.windows.stats.bootstrap.method is not bca_paired_delta_log".to_owned());
        }
        let floor = tier.coverage().replicates.min(self.options.profile.replicates());
        if self.gated() && replicates < floor {
            self.fail(format!("dataset.windows.stats.bootstrap.replicates is {replicates}, below {floor}"));
        }
        if replicates.saturating_mul(last.losses.len()) > MAX_DRAWS {
            return self.fail(format!(
                "dataset.windows.stats.bootstrap.replicates is {replicates} for {} windows: more than a verifier does",
                last.losses.len()
            ));
        }
        let alpha = float(&settings["alpha"]).unwrap_or(ALPHA);
        let computed =
            derive::paired_ci(&last.losses, &base.losses, &last.counts, method, replicates, alpha, seed);
        let (low, high) = match computed {
            Ok(interval) => interval,
            Err(why) => {
                return self.mismatch(format!("primary_metric.ci mismatch: it cannot be computed: {why}"));
            }
        };
        for (place, recorded, expected) in [
            ("primary_metric.ci", &metric["ci"], (low, high)),
            ("primary_metric.display_ci", &metric["display_ci"], (low.exp(), high.exp())),
        ] {
            if pair(recorded).is_none() {
                self.mismatch(format!("{place} mismatch: it is no pair of numbers"));
                continue;
            }
            self.number(&format!("{place}[0]"), &recorded[0], expected.0);
            self.number(&format!("{place}[1]"), &recorded[1], expected.1);
        }
        if self.ours {
            self.number("primary_metric.reps", &metric["reps"], replicates as f64);
            self.number("primary_metric.ci_level", &metric["ci_level"], 1.0 - ALPHA);
        }
        self.yes("the confidence interval, by the recorded bootstrap");
    }

    /// Every leaf of `computed` must be in `recorded`.
    fn alike(&mut self, place: &str, recorded: &Value, computed: &Value) {
        match computed {
            Value::Object(members) => {
                for (name, member) in members {
                    self.alike(&format!("{place}.{name}"), &recorded[name], member);
                }
            }
            Value::Array(members)
                if recorded.as_array().is_some_and(|array| array.len() == members.len()) =>
            {
                for (i, member) in members.iter().enumerate() {
                    self.alike(&format!("{place}[{i}]"), &recorded[i], member);
                }
            }
            Value::Number(number) if number.is_f64() => {
                self.number(place, recorded, number.as_f64().unwrap_or(f64::NAN));
            }
            _ => self.same(place, recorded, computed),
        }
    }

    /// The gates, from recomputed numbers where there are any, and the flags the report states.
    fn gates(&mut self, tier: Tier, numbers: Option<Numbers<'_>>) {
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
            let caps = match tier {
                Tier::Conservative => 3,
                Tier::Balanced => 5,
                Tier::Aggressive => 8,
            };
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
            if self.gated() && float(&overhead["overhead_ratio"]).is_some_and(|ratio| ratio > 1.01) {
                self.gate(format!(
                    "guard_overhead.overhead_ratio is {}, above 1.01",
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
    fn own_flags(&self, tier: Tier, numbers: Option<&Numbers<'_>>) -> Map<String, Value> {
        let Some((numbers, ratio)) = numbers.and_then(|numbers| Some((numbers, numbers.ratio?))) else {
            return Map::new();
        };
        let own = gates::profile(self.report);
        let status = self.report["invariants"]["status"].as_str();
        derive::validation(own, tier, ratio, numbers.drift, numbers.enough(tier), status)
    }

    fn numbers(&mut self, tier: Tier, numbers: &Numbers<'_>) {
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
        let unstable = replicates < 200 || !enough;
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
    fn constants(&mut self, profile: Profile) {
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
    fn invariants(&mut self) {
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
struct Numbers<'a> {
    ratio: Option<f64>,
    drift: f64,
    preview: &'a Arm,
    last: &'a Arm,
}

impl Numbers<'_> {
    fn tokens(&self) -> u64 {
        self.preview.tokens().saturating_add(self.last.tokens())
    }

    fn enough(&self, tier: Tier) -> bool {
        derive::enough_tokens(tier, self.tokens(), self.preview.ids.len(), self.last.ids.len())
    }
}
