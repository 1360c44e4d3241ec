//! The loss per byte of text: what a perplexity says of tokens, comparable between vocabularies. It is informative and gates nothing.

use super::derive;
use super::sides::Side;
use crate::format::evaluation_report::SecondaryMetric;
use crate::format::objective::Objective;
use crate::numerics::bootstrap::Method;
use crate::numerics::stats::mean;
use crate::policy::ALPHA;
use invarlock_error::{Context as _, Error, Foreign as _, Kind};

/// Name of the metric, as InvarLock 0.17 has it.
pub const NLL_PER_BYTE: &str = "normalized_nll_per_utf8_byte";

/// The mean over final windows of nats per UTF-8 byte of the predicted text, of both sides. None where the baseline's run report does not
/// have the lengths of the texts, a text is empty, or single tokens are predicted, which make no text. Only a perplexity has it.
pub(super) fn nll_per_byte(
    base: &Side<'_>,
    subj: &Side<'_>,
    replicates: usize,
    seed: u64,
) -> Result<Option<SecondaryMetric>, Error> {
    let (before, after) = (&base.report.evaluation_windows.final_, &subj.report.evaluation_windows.final_);
    let Some(bytes) = &before.predicted_utf8_bytes else { return Ok(None) };
    let first = match base.metric.objective {
        // The first token of a window is counted, and is not predicted.
        Objective::Causal => 1,
        Objective::Seq2Seq => 0,
        Objective::Masked => return Ok(None),
    };
    if bytes.len() != after.token_counts.len() || bytes.contains(&0) {
        return Ok(None);
    }
    let per_byte = |losses: &[f64]| -> Vec<f64> {
        let windows = losses.iter().zip(&after.token_counts).zip(bytes);
        windows
            .map(|((loss, tokens), bytes)| loss * tokens.saturating_sub(first) as f64 / *bytes as f64)
            .collect()
    };
    let (before, after) = (per_byte(&before.logloss), per_byte(&after.logloss));
    let (low, high) = derive::paired_ci(&after, &before, None, Method::Bca, replicates, ALPHA, seed)
        .err_kind(Kind::Input)
        .context("computing the confidence interval of the loss per byte")?;
    let (baseline, last) = (mean(&before), mean(&after));
    let numbers = [baseline, last, last / baseline, low, high];
    Ok(numbers.into_iter().all(f64::is_finite).then(|| SecondaryMetric {
        kind: NLL_PER_BYTE.to_owned(),
        unit: "nats_per_utf8_byte".to_owned(),
        direction: "lower".to_owned(),
        paired: true,
        gated: false,
        baseline,
        final_: last,
        bits_per_byte: last / std::f64::consts::LN_2,
        ratio_vs_baseline: last / baseline,
        ci: [low, high],
        ci_level: 1.0 - ALPHA,
        reps: replicates,
    }))
}
