//! The metrics, in one table: what each measures, and what reports say of it.

use super::objective::Objective;
use serde::{Deserialize, Serialize};

/// The metric of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub enum MetricKind {
    /// Perplexity of a causal language model.
    #[serde(rename = "ppl_causal")]
    PplCausal,
    /// Perplexity of a masked language model on its masked tokens.
    #[serde(rename = "ppl_mlm")]
    PplMlm,
    /// Perplexity of a sequence-to-sequence model on its targets.
    #[serde(rename = "ppl_seq2seq")]
    PplSeq2Seq,
    /// Accuracy of a causal language model on examples with choices.
    #[serde(rename = "accuracy")]
    Accuracy,
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its kind.
    pub kind: MetricKind,
    /// Its name in reports.
    pub name: &'static str,
    /// The models that it measures.
    pub objective: Objective,
    /// Unit of its value.
    pub unit: &'static str,
    /// `lower` or `higher`: which value is better.
    pub direction: &'static str,
    /// What a mean is taken over.
    pub scope: &'static str,
    /// The end of the interval that upstream's gates name.
    pub gating_basis: &'static str,
}

impl Metric {
    /// Whether it is a share of right answers, and not a perplexity.
    pub fn is_accuracy(&self) -> bool {
        self.kind == MetricKind::Accuracy
    }

    /// Whether what is predicted in a window does not follow from its tokens, so that formats state it.
    pub fn has_labels(&self) -> bool {
        !self.objective.is_causal() || self.is_accuracy()
    }

    /// `loss_type` of reports, and of presets.
    pub fn loss_type(&self) -> &'static str {
        if self.is_accuracy() { "classification" } else { self.objective.loss_type() }
    }
}

/// Every metric.
pub static TABLE: [Metric; 4] = [
    perplexity(MetricKind::PplCausal, "ppl_causal", Objective::Causal),
    perplexity(MetricKind::PplMlm, "ppl_mlm", Objective::Masked),
    perplexity(MetricKind::PplSeq2Seq, "ppl_seq2seq", Objective::Seq2Seq),
    Metric {
        kind: MetricKind::Accuracy,
        name: "accuracy",
        objective: Objective::Causal,
        unit: "accuracy",
        direction: "higher",
        scope: "example",
        gating_basis: "lower",
    },
];

/// The exponential of the mean loss of the predicted tokens.
const fn perplexity(kind: MetricKind, name: &'static str, objective: Objective) -> Metric {
    let (unit, direction, scope, gating_basis) = ("ppl", "lower", "token", "upper");
    Metric { kind, name, objective, unit, direction, scope, gating_basis }
}

/// The metric of a kind.
pub fn of(kind: MetricKind) -> &'static Metric {
    match kind {
        MetricKind::PplCausal => &TABLE[0],
        MetricKind::PplMlm => &TABLE[1],
        MetricKind::PplSeq2Seq => &TABLE[2],
        MetricKind::Accuracy => &TABLE[3],
    }
}

/// The metric with this name.
pub fn named(name: &str) -> Option<&'static Metric> {
    TABLE.iter().find(|metric| metric.name == name)
}

/// The perplexity of models with this objective.
pub fn perplexity_of(objective: Objective) -> &'static Metric {
    match objective {
        Objective::Causal => of(MetricKind::PplCausal),
        Objective::Masked => of(MetricKind::PplMlm),
        Objective::Seq2Seq => of(MetricKind::PplSeq2Seq),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_kind_and_by_name() {
        for metric in &TABLE {
            assert_eq!((of(metric.kind), named(metric.name)), (metric, Some(metric)));
            assert_eq!(perplexity_of(metric.objective) == metric, !metric.is_accuracy());
            assert_eq!(serde_json::to_value(metric.kind).expect("JSON"), metric.name);
        }
        assert_eq!(named("bleu"), None);
        assert_eq!(TABLE.each_ref().map(Metric::has_labels), [false, true, true, true]);
    }
}
