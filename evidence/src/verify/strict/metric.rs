//! The primary metric, recomputed from the losses of both sides.

use super::gates::Numbers;
use super::{Arm, Check, MAX_DRAWS};
use crate::compare::derive;
use crate::format::metrics::Metric;
use crate::numerics::bootstrap::Method;
use crate::policy::{ALPHA, Tier};
use crate::run_report::RunReport;
use crate::verify::python::{float, int, pair};
use serde_json::json;

/// Both arms of one side.
struct Arms {
    preview: Arm,
    last: Arm,
}

impl Check<'_> {
    pub(super) fn metric(&mut self, metric: &Metric, tier: Tier, baseline: Option<&RunReport>) {
        let windows = self.report.get("evaluation_windows");
        let (preview, last) = match (Arm::read(windows.get("preview")), Arm::read(windows.get("final"))) {
            (Ok(preview), Ok(last)) => (preview, last),
            (preview, last) => {
                for why in [preview.err(), last.err()].into_iter().flatten() {
                    if self.gated() {
                        self.fail(format!("nothing can be recomputed: {why}"));
                    } else {
                        self.not(format!("losses: {why}"));
                    }
                }
                return self.gates(tier, None);
            }
        };
        self.windows(metric, &preview, &last);
        let finite = |mean: &f64| mean.exp().is_finite();
        let means = preview.mean().zip(last.mean());
        let means = means.filter(|(first, last)| finite(first) && finite(last) && first.exp() > 0.0);
        let Some((preview_mean, last_mean)) = means else {
            return self
                .mismatch("evaluation_windows mismatch: the losses have no finite perplexity".to_owned());
        };
        self.points(preview_mean, last_mean);
        let drift = last_mean.exp() / preview_mean.exp();
        let subject = Arms { preview, last };
        let ratio = self.ratio(tier, &subject, last_mean, baseline);
        let (preview, last) = (&subject.preview, &subject.last);
        self.gates(tier, Some(Numbers { ratio, drift, preview, last }));
    }

    /// Perplexities and mean losses of the subject.
    fn points(&mut self, preview_mean: f64, last_mean: f64) {
        let metric = self.report.get("primary_metric");
        self.number(metric.get("final"), last_mean.exp());
        self.number(metric.get("preview"), preview_mean.exp());
        for (recorded, mean) in [
            (metric.get("analysis_point_final"), last_mean),
            (metric.get("analysis_point_preview"), preview_mean),
        ] {
            if !recorded.is_null() {
                self.number(recorded, mean);
            }
        }
        self.yes("preview and final perplexity of the subject, from its losses");
    }

    /// Ratio, interval and tail, from the baseline's losses. Returns the ratio to gate on: the recomputed one if possible.
    fn ratio(
        &mut self,
        tier: Tier,
        subject: &Arms,
        subject_mean: f64,
        baseline: Option<&RunReport>,
    ) -> Option<f64> {
        let recorded = self.report.at("primary_metric.ratio_vs_baseline");
        let Some((base, base_mean)) = self.comparable_baseline(subject, baseline) else {
            return float(recorded);
        };
        let reference = self.report.at("baseline_ref.primary_metric");
        self.number(reference.get("final"), base_mean.exp());
        let ratio = subject_mean.exp() / base_mean.exp();
        self.number(recorded, ratio);
        self.yes("ratio_vs_baseline, from the losses of both sides");
        self.interval(tier, &subject.last, &base.last);
        Some(ratio)
    }

    /// The baseline's arms, if they are known and measured on the subject's windows, and their mean loss.
    fn comparable_baseline(&mut self, subject: &Arms, baseline: Option<&RunReport>) -> Option<(Arms, f64)> {
        let base = self.baseline_arms(baseline)?;
        for (name, arm, other) in
            [("preview", &base.preview, &subject.preview), ("final", &base.last, &subject.last)]
        {
            if arm.ids != other.ids || arm.counts != other.counts {
                self.mismatch(format!(
                    "baseline_windows.{name} mismatch: its window_ids or token_counts are not the subject's"
                ));
                return None;
            }
        }
        let Some(mean) = base.last.mean().filter(|mean| mean.is_finite() && mean.exp().is_finite()) else {
            self.mismatch("baseline_windows.final mismatch: the losses have no finite perplexity".to_owned());
            return None;
        };
        Some((base, mean))
    }

    /// The baseline's arms: of the run report of `--baseline`, otherwise those in the report.
    fn baseline_arms(&mut self, baseline: Option<&RunReport>) -> Option<Arms> {
        let embedded = self.report.get("baseline_windows");
        let mut known: Option<Arms> = None;
        if !embedded.is_null() {
            match (Arm::read(embedded.get("preview")), Arm::read(embedded.get("final"))) {
                (Ok(preview), Ok(last)) => known = Some(Arms { preview, last }),
                (preview, last) => {
                    for why in [preview.err(), last.err()].into_iter().flatten() {
                        self.mismatch(format!("baseline_windows mismatch: {why}"));
                    }
                    return None;
                }
            }
        }
        if let Some(run) = baseline {
            known = Some(self.supplied_baseline(run, known));
        }
        if known.is_none() {
            let why =
                "the report contains no baseline losses; pass the baseline's run report with --baseline";
            self.not(format!("ratio_vs_baseline, its interval and the baseline's perplexity: {why}"));
        }
        known
    }

    /// The arms of the run report of `--baseline`, after a comparison with what the report states.
    fn supplied_baseline(&mut self, run: &RunReport, embedded: Option<Arms>) -> Arms {
        let windows = &run.evaluation_windows;
        let supplied = Arms { preview: Arm::of(&windows.preview), last: Arm::of(&windows.final_) };
        let same = |arms: &Arms| {
            arms.preview.same_losses(&supplied.preview) && arms.last.same_losses(&supplied.last)
        };
        if embedded.as_ref().is_some_and(|arms| !same(arms)) {
            self.mismatch(
                "baseline_windows mismatch: they are not the losses of the supplied run report".to_owned(),
            );
        }
        for (path, arm) in [
            ("evaluation_windows.preview.input_ids", &windows.preview),
            ("evaluation_windows.final.input_ids", &windows.final_),
        ] {
            let recorded = self.report.at(path);
            if recorded != json!(arm.input_ids) && !recorded.is_null() {
                self.mismatch(format!(
                    "{path} mismatch: the supplied baseline was measured on other windows"
                ));
            }
        }
        self.yes("the baseline's losses, against the supplied run report");
        supplied
    }

    /// The confidence interval, with the method, replicates and seed that the report records.
    fn interval(&mut self, tier: Tier, last: &Arm, base: &Arm) {
        let metric = self.report.get("primary_metric");
        let settings = self.report.at("dataset.windows.stats.bootstrap");
        let path = settings.path();
        let method = match settings.get("method").str().unwrap_or_default() {
            name if name.contains("bca") => Method::Bca,
            _ => Method::Percentile,
        };
        let (Some(replicates), Some(seed)) = (int(settings.get("replicates")), int(settings.get("seed")))
        else {
            return self.mismatch(format!("{path} mismatch: no replicates or seed"));
        };
        let replicates = usize::try_from(replicates).unwrap_or(usize::MAX);
        self.same(settings.get("alpha"), &json!(ALPHA));
        if self.gated() && method != Method::Bca {
            self.fail(format!("{path}.method is not bca_paired_delta_log"));
        }
        let floor = tier.coverage().replicates.min(self.options.profile.replicates());
        if self.gated() && replicates < floor {
            self.fail(format!("{path}.replicates is {replicates}, below {floor}"));
        }
        let count = last.losses.len();
        if replicates.saturating_mul(count) > MAX_DRAWS {
            return self.fail(format!(
                "{path}.replicates is {replicates} for {count} windows: more than the verifier computes"
            ));
        }
        let alpha = float(settings.get("alpha")).unwrap_or(ALPHA);
        let computed = derive::paired_ci(
            &last.losses,
            &base.losses,
            Some(&last.counts),
            method,
            replicates,
            alpha,
            seed,
        );
        let (low, high) = match computed {
            Ok(interval) => interval,
            Err(why) => {
                return self.mismatch(format!("primary_metric.ci mismatch: it cannot be computed: {why}"));
            }
        };
        for (recorded, expected) in
            [(metric.get("ci"), (low, high)), (metric.get("display_ci"), (low.exp(), high.exp()))]
        {
            if pair(recorded).is_none() {
                self.mismatch(format!("{} mismatch: it is not a pair of numbers", recorded.path()));
                continue;
            }
            self.number(recorded.index(0), expected.0);
            self.number(recorded.index(1), expected.1);
        }
        self.yes("the confidence interval, by the recorded bootstrap");
    }
}
