//! `metrics.classification` of reports: how many examples were answered right, from which upstream's verifier computes an accuracy again.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Counts of right answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Classification {
    /// Of the preview arm.
    pub preview: Counts,
    /// Of the final arm.
    #[serde(rename = "final")]
    pub final_: Counts,
    /// `measured`.
    pub counts_source: String,
    /// Always false.
    pub estimated: bool,
    /// Always empty.
    pub subgroups: Map<String, Value>,
    /// As `final.n_correct`.
    pub n_correct: usize,
    /// As `final.n_total`.
    pub n_total: usize,
}

/// Right answers of one arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Examples that were answered right.
    pub n_correct: usize,
    /// Examples.
    pub n_total: usize,
}

impl Counts {
    fn of(answered: &[bool]) -> Self {
        Self { n_correct: answered.iter().filter(|right| **right).count(), n_total: answered.len() }
    }
}

impl Classification {
    /// The counts of both arms; each element says whether an example was answered right.
    pub(crate) fn of(preview: &[bool], final_: &[bool]) -> Self {
        let (preview, final_) = (Counts::of(preview), Counts::of(final_));
        Self {
            preview,
            final_,
            counts_source: "measured".to_owned(),
            estimated: false,
            subgroups: Map::new(),
            n_correct: final_.n_correct,
            n_total: final_.n_total,
        }
    }
}
