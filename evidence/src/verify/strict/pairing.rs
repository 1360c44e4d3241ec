//! The metric from the losses of both sides.

use super::gates::Numbers;
use super::{Arm, Check, MAX_DRAWS};
use crate::compare::derive;
use crate::format::to_value;
use crate::numerics::bootstrap::Method;
use crate::policy::{ALPHA, Tier};
use crate::run_report::RunReport;
use crate::verify::python::{float, int, pair};
use serde_json::json;

impl Check<'_> {
    pub(super) fn metric(&mut self, tier: Tier, baseline: Option<(&RunReport, &str)>) {
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
            let computed = to_value(&derive::drift_summary(
                (&preview.losses, &preview.counts),
                (&last.losses, &last.counts),
            ));
            self.alike("dataset.windows.stats.paired_delta_summary", summary, &computed);
        }
        let ratio = self.pair(tier, &preview, &last, final_, baseline);
        self.gates(
            tier,
            Some(Numbers { ratio, drift: final_.exp() / first.exp(), preview: &preview, last: &last }),
        );
    }

    /// Ratio, interval and tail, from the baseline's losses. Returns the ratio to gate on.
    pub(super) fn pair(
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
            let computed = to_value(&derive::tail(&last.losses, &base_last.losses, &last.counts, tier));
            self.alike("primary_metric_tail", &report["primary_metric_tail"], &computed);
        }
        Some(ratio)
    }

    pub(super) fn interval(&mut self, tier: Tier, last: &Arm, base: &Arm) {
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
}
