//! The numbers of a report that a verdict repeats.

use crate::format::evaluation_report::EvaluationReport;
use crate::format::untrusted::Node;
use crate::numerics::stats::weighted_mean;
use serde::Serialize;
use serde_json::Value;

/// The numbers of one report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Kind of the primary metric.
    pub kind: Option<String>,
    /// Ratio of the perplexities or accuracies.
    pub ratio: Option<f64>,
    /// Interval of the ratio or, in percentage points, of the difference of accuracies, as recorded.
    pub interval: Option<(f64, f64)>,
    /// Windows of both arms.
    pub windows: Option<(u64, u64)>,
    /// Name of the tier.
    pub tier: Option<String>,
    /// Warnings of the guards.
    pub guard_warnings: u64,
    /// Whether the metric follows from the losses of the report (`recompute` in JSON).
    pub recompute: Option<Recompute>,
}

/// Whether the metric follows from the losses of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Recompute {
    /// `ppl` or `accuracy`.
    pub family: &'static str,
    /// False if it does not follow.
    pub ok: bool,
    /// `mismatch`; `skipped` if the report has no losses; null if the metric follows.
    pub reason: Option<&'static str>,
}

impl Summary {
    /// Of a report of this program, whose numbers are recomputed elsewhere.
    pub(super) fn of(report: &EvaluationReport) -> Self {
        let (metric, windows) = (&report.primary_metric, &report.dataset.windows);
        Self {
            kind: Some(metric.kind.clone()),
            ratio: Some(metric.ratio_vs_baseline),
            interval: Some((metric.display_ci[0], metric.display_ci[1])),
            windows: Some((windows.preview as u64, windows.final_ as u64)),
            tier: Some(report.auto.tier.clone()),
            guard_warnings: 0,
            recompute: Some(Recompute {
                family: if metric.kind == "accuracy" { "accuracy" } else { "ppl" },
                ok: true,
                reason: None,
            }),
        }
    }

    /// Of a report of another program.
    pub(super) fn of_foreign(report: Node<'_>, tolerance: f64) -> Self {
        let metric = report.get("primary_metric");
        let interval = metric.get("display_ci");
        let windows = report.at("dataset.windows");
        let interval = match interval.array() {
            Some([_, _]) => interval.index(0).f64().zip(interval.index(1).f64()),
            _ => None,
        };
        Self {
            kind: metric.get("kind").str().map(str::to_owned),
            ratio: metric.get("ratio_vs_baseline").f64(),
            interval,
            windows: windows.get("preview").u64().zip(windows.get("final").u64()),
            tier: report.at("auto.tier").str().map(str::to_owned),
            guard_warnings: report.at("guard_warnings.warning_count").u64().unwrap_or_default(),
            recompute: recompute(report, tolerance),
        }
    }
}

fn recompute(report: Node<'_>, tolerance: f64) -> Option<Recompute> {
    let metric = report.get("primary_metric");
    let kind = metric.get("kind").str().unwrap_or_default();
    let (family, computed) = if kind == "accuracy" {
        let classes = report.at("metrics.classification");
        let counts = classes.get("n_correct").f64().zip(classes.get("n_total").f64());
        ("accuracy", counts.filter(|(_, total)| *total > 0.0).map(|(correct, total)| correct / total))
    } else if kind.starts_with("ppl") {
        let arm = report.at("evaluation_windows.final");
        let losses: Option<Vec<f64>> =
            arm.get("logloss").array().and_then(|losses| losses.iter().map(Value::as_f64).collect());
        let weights: Option<Vec<u64>> =
            arm.get("token_counts").array().and_then(|counts| counts.iter().map(Value::as_u64).collect());
        let mean = losses.zip(weights).and_then(|(losses, weights)| weighted_mean(&losses, &weights));
        ("ppl", mean.map(f64::exp))
    } else {
        return None;
    };
    let Some(computed) = computed else {
        return Some(Recompute { family, ok: true, reason: Some("skipped") });
    };
    let tolerance = tolerance.max(1e-12);
    let ok = metric.get("final").f64().is_some_and(|last| (last - computed).abs() <= tolerance);
    Some(Recompute { family, ok, reason: (!ok).then_some("mismatch") })
}
