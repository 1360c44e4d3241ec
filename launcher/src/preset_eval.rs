//! The section `eval` of a preset: the metric and the loss. A setting that would be ignored is an error that names it.

use crate::error::{Context as _, Error, Result};
use crate::metric_choice::Choice;
use invarlock_evidence::format::masking::Masking;
use serde::Deserialize;
use serde_norway::Value;

/// `eval`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    metric: Option<MetricSection>,
    loss: Option<LossSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricSection {
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LossSection {
    #[serde(rename = "type")]
    kind: Option<String>,
    mask_prob: Option<f64>,
    seed: Option<u64>,
    random_token_prob: Option<f64>,
    original_token_prob: Option<f64>,
}

impl LossSection {
    /// The settings of masking, if one of them is set.
    fn masking(&self) -> Option<Masking> {
        let Self { mask_prob, seed, random_token_prob: random, original_token_prob: original, .. } = *self;
        if (mask_prob, random, original) == (None, None, None) && seed.is_none() {
            return None;
        }
        let default = Masking::default();
        Some(Masking {
            mask_prob: mask_prob.unwrap_or(default.mask_prob),
            seed: seed.unwrap_or(default.seed),
            random_token_prob: random.unwrap_or(default.random_token_prob),
            original_token_prob: original.unwrap_or(default.original_token_prob),
        })
    }
}

/// Reads the section: adds what it names to the metric, and gives the settings of masking.
pub fn read(section: Value, metric: &mut Choice) -> Result<Option<Masking>> {
    let section: Option<Section> =
        serde_norway::from_value(section).map_err(|e| Error::input(e.to_string())).context("section `eval`").hint(
            "supported: metric: {kind}, loss: {type, mask_prob, seed, random_token_prob, original_token_prob}",
        )?;
    let Section { metric: named, loss } = section.unwrap_or_default();
    if let Some(kind) = named.and_then(|named| named.kind) {
        metric.metric("eval.metric.kind", &kind)?;
    }
    let Some(loss) = loss else { return Ok(None) };
    if let Some(kind) = &loss.kind {
        metric.loss("eval.loss.type", kind)?;
    }
    let masking = loss.masking();
    masking.iter().try_for_each(Masking::check)?;
    Ok(masking)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use invarlock_evidence::format::metrics::MetricKind;

    fn read_text(yaml: &str) -> Result<(Option<MetricKind>, Option<Masking>)> {
        let mut metric = Choice::default();
        let masking = read(serde_norway::from_str(yaml).unwrap(), &mut metric)?;
        Ok((metric.kind(), masking))
    }

    #[test]
    fn reads_metric_and_masking() {
        assert_eq!(read_text("").unwrap(), (None, None));
        assert_eq!(read_text("{metric: {kind: auto}, loss: {type: auto}}").unwrap(), (None, None));
        let (kind, masking) =
            read_text("{metric: {kind: ppl_mlm}, loss: {type: mlm, mask_prob: 0.3}}").unwrap();
        assert_eq!(kind, Some(MetricKind::PplMlm));
        let (kind, _) = read_text("{metric: {kind: accuracy}, loss: {type: classification}}").unwrap();
        assert_eq!(kind, Some(MetricKind::Accuracy));
        assert_eq!(masking, Some(Masking { mask_prob: 0.3, ..Masking::default() }));
    }

    #[test]
    fn refuses_other_settings_and_contradictions() {
        for (yaml, word) in [
            ("{bootstrap: {replicates: 10}}", "bootstrap"),
            ("{metric: {reps: 10}}", "reps"),
            ("{metric: {kind: bleu}}", "bleu"),
            ("{loss: {type: ranking}}", "ranking"),
            ("{metric: {kind: accuracy}, loss: {type: causal}}", "contradicts"),
            ("{metric: {kind: ppl_causal}, loss: {type: mlm}}", "contradicts"),
            ("{loss: {mask_prob: 0}}", "eval.loss.mask_prob is 0"),
            ("{loss: {mask_prob: many}}", "section `eval`"),
            ("{loss: {random_token_prob: 0.7, original_token_prob: 0.7}}", "above 1"),
        ] {
            let error = read_text(yaml).unwrap_err();
            assert!(error.to_string().contains(word), "{yaml}: {error}");
        }
    }
}
