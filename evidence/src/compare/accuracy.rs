//! The accuracy: which share of the examples is answered right, and the paired difference of both sides.

use super::arms::Arm;
use super::derive::{self, Decisive};
use super::sides::Side;
use super::{CompareContext, Metric};
use crate::format::classification::Classification;
use crate::format::evaluation_report::{Band, PairedDeltaSummary, ReportMetrics};
use crate::numerics::bootstrap::Method;
use crate::policy::{ACCURACY_DRIFT, ALPHA};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result};

/// Fails where the baseline answers nothing right: a subject cannot be worse.
pub(super) fn check_baseline(baseline: &Side<'_>) -> Result<()> {
    if baseline.last.value > 0.0 {
        return Ok(());
    }
    let examples = baseline.last.answered.len();
    Err(Error::input(format!(
        "the baseline answers none of the {examples} final examples right, so there is nothing to compare with"
    ))
    .with_hint("use examples that the baseline can answer, or more of them"))
}

/// The numbers of an accuracy. Each example counts as 1 where it is answered right, else as 0.
pub(super) fn derive(
    base: &Side<'_>,
    subj: &Side<'_>,
    context: &CompareContext,
    replicates: usize,
) -> Result<Metric> {
    check_baseline(base)?;
    let (before, after) = (values(&base.last), values(&subj.last));
    let seed = context.bootstrap_seed;
    let interval = derive::paired_ci(&after, &before, None, Method::Bca, replicates, ALPHA, seed)
        .err_kind(Kind::Input)
        .context("computing the confidence interval")?;
    let display = (100.0 * interval.0, 100.0 * interval.1);
    Ok(Metric {
        delta_pp: Some(100.0 * (subj.last.value - base.last.value)),
        interval,
        display,
        decisive: Decisive::Accuracy {
            low_pp: display.0,
            drift: subj.last.value - subj.preview.value,
            examples: after.len(),
        },
        tail: derive::no_tail(context.tier),
        drift_band: Band { min: -ACCURACY_DRIFT, max: ACCURACY_DRIFT },
        secondary: None,
    })
}

/// 1 for each example that is answered right, else 0.
fn values(arm: &Arm) -> Vec<f64> {
    arm.answered.iter().map(|right| f64::from(u8::from(*right))).collect()
}

/// `paired_delta_summary`: final minus preview of one model, example by example.
pub(super) fn drift_summary(side: &Side<'_>) -> PairedDeltaSummary {
    let (preview, last) = (values(&side.preview), values(&side.last));
    let weights = vec![1; preview.len().max(last.len())];
    derive::drift_summary((&preview, &weights[..preview.len()]), (&last, &weights[..last.len()]))
}

/// The counts of a side; none unless an accuracy was measured.
pub(super) fn counts(side: &Side<'_>) -> Option<ReportMetrics> {
    let classification = Classification::of(&side.preview.answered, &side.last.answered);
    side.metric.is_accuracy().then_some(ReportMetrics { classification })
}
