//! The primary metric and what is decided on it.

use super::TailPolicy;
use crate::format::classification::Classification;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// A closed range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// Lower end.
    pub min: f64,
    /// Upper end.
    pub max: f64,
}

/// `primary_metric`: the metric of the subject against that of the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PrimaryMetric {
    /// `ppl_causal`, `ppl_mlm`, `ppl_seq2seq` or `accuracy`.
    pub kind: String,
    /// `ppl` or `accuracy`.
    pub unit: String,
    /// Which value is better: `lower`, of an accuracy `higher`.
    pub direction: String,
    /// `token`: losses are weighted by predicted tokens; of an accuracy, `example`.
    pub aggregation_scope: String,
    /// Whether both sides measured the same windows.
    pub paired: bool,
    /// `upper`: the gate is an upper limit; of an accuracy, `lower`.
    pub gating_basis: String,
    /// Whether the interval comes from a bootstrap.
    pub supports_bootstrap: bool,
    /// Perplexity of the preview arm, or its accuracy: the share of examples that are answered right.
    pub preview: f64,
    /// The same of the final arm.
    #[serde(rename = "final")]
    pub final_: f64,
    /// Final examples of an accuracy; absent for other metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_final: Option<usize>,
    /// Value of the subject divided by that of the baseline, final arm.
    pub ratio_vs_baseline: f64,
    /// Accuracy of the subject minus that of the baseline, final arm, percentage points; absent for other metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_pp: Option<f64>,
    /// Interval of the difference of mean log-losses, nats a token, or of accuracies.
    pub ci: [f64; 2],
    /// Interval of the ratio: the exponential of `ci`. Of an accuracy, `ci` in percentage points.
    pub display_ci: [f64; 2],
    /// Confidence level of both, such as 0.95.
    pub ci_level: f64,
    /// Bootstrap replicates.
    pub reps: usize,
    /// `mean_logloss` or `accuracy`.
    pub analysis_basis: String,
    /// Mean log-loss of the preview arm, nats a token, or its accuracy.
    pub analysis_point_preview: f64,
    /// The same of the final arm.
    pub analysis_point_final: f64,
    /// Always false: no report is written for an invalid metric.
    pub invalid: bool,
    /// Always false.
    pub degraded: bool,
    /// Too few replicates, tokens or examples for a stable interval.
    pub unstable: bool,
    /// Band for final/preview perplexity; of an accuracy, for the difference of final and preview.
    pub drift_band: Band,
}

/// `metrics` of the report of an accuracy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReportMetrics {
    /// Counts of the right answers.
    pub classification: Classification,
}

/// One of `secondary_metrics`: mean over the final windows of the loss of the predicted tokens per UTF-8 byte of their text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SecondaryMetric {
    /// `normalized_nll_per_utf8_byte`.
    pub kind: String,
    /// `nats_per_utf8_byte`.
    pub unit: String,
    /// `lower`: a lower value is better.
    pub direction: String,
    /// Always true: both sides measured the same windows.
    pub paired: bool,
    /// Always false.
    pub gated: bool,
    /// The baseline's value, nats a byte.
    pub baseline: f64,
    /// The subject's value, nats a byte.
    #[serde(rename = "final")]
    pub final_: f64,
    /// The subject's value in bits a byte.
    pub bits_per_byte: f64,
    /// The subject's value divided by the baseline's.
    pub ratio_vs_baseline: f64,
    /// Interval of the difference of subject and baseline, nats a byte.
    pub ci: [f64; 2],
    /// Its confidence level, such as 0.95.
    pub ci_level: f64,
    /// Bootstrap replicates.
    pub reps: usize,
}

/// `primary_metric_tail`: tail of the differences of log-loss, window by window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tail {
    /// `warn`: a heavy tail warns and does not fail; `off` for an accuracy.
    pub mode: String,
    /// Whether there are enough windows.
    pub evaluated: bool,
    /// No violation.
    pub passed: bool,
    /// A violation.
    pub warned: bool,
    /// Limits that are exceeded.
    pub violations: Vec<TailViolation>,
    /// The limits.
    pub policy: TailPolicy,
    /// The measured tail.
    pub stats: TailStats,
    /// `paired_baseline.final`.
    pub source: String,
}

/// One exceeded limit of the tail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TailViolation {
    /// A quantile is above its limit.
    QuantileMaxExceeded {
        /// The quantile, between 0 and 1.
        quantile: f64,
        /// Its value, nats a token.
        observed: f64,
        /// Its limit, nats a token.
        threshold: f64,
    },
    /// Too many windows are worse than the baseline's.
    MassMaxExceeded {
        /// Share of these windows.
        observed: f64,
        /// Its limit.
        threshold: f64,
    },
}

/// Statistics of the per-window differences; quantiles in nats a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TailStats {
    /// Number of windows.
    pub n: usize,
    /// Differences above it count as tail mass, nats a token.
    pub epsilon: f64,
    /// Largest difference; null without windows.
    pub max: Option<f64>,
    /// Share of windows above `epsilon`.
    pub tail_mass: f64,
    /// The same, weighted by tokens.
    pub tail_mass_weighted: f64,
    /// `weights`.
    pub tail_mass_weighted_by: String,
    /// Median.
    pub q50: f64,
    /// 90th percentile.
    pub q90: f64,
    /// 95th percentile.
    pub q95: f64,
    /// 99th percentile.
    pub q99: f64,
}

/// `validation`: the flags of the gates that were evaluated, in the order in which they were decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Validation(Vec<(Cow<'static, str>, bool)>);

impl Validation {
    /// Adds a flag.
    pub fn push(&mut self, flag: &'static str, value: bool) {
        self.0.push((Cow::Borrowed(flag), value));
    }

    /// A flag; none where it was not decided.
    pub fn get(&self, flag: &str) -> Option<bool> {
        self.iter().find(|(name, _)| *name == flag).map(|(_, value)| value)
    }

    /// Every flag with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }
}

#[cfg(feature = "schemas")]
impl schemars::JsonSchema for Validation {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Validation")
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        std::collections::BTreeMap::<String, bool>::json_schema(generator)
    }
}

impl Serialize for Validation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Validation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Flags;
        impl<'de> Visitor<'de> for Flags {
            type Value = Validation;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of flags")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Validation, A::Error> {
                let mut flags = Vec::new();
                while let Some((name, value)) = members.next_entry::<String, bool>()? {
                    flags.push((Cow::Owned(name), value));
                }
                Ok(Validation(flags))
            }
        }
        deserializer.deserialize_map(Flags)
    }
}

/// `confidence`: how well the ratio is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Confidence {
    /// The label.
    pub label: ConfidenceLabel,
    /// `ppl_ratio` or `accuracy`.
    pub basis: String,
    /// Width of the interval: [`PrimaryMetric::display_ci`].
    pub width: f64,
    /// Width up to which confidence is high.
    pub threshold: f64,
    /// As [`PrimaryMetric::unstable`].
    pub unstable: bool,
}

/// Label of a confidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub enum ConfidenceLabel {
    /// The metric is acceptable and its interval is narrow.
    High,
    /// The interval is up to twice as wide, or unstable.
    Medium,
    /// Anything else.
    Low,
}

/// Whether the gates of the profile passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All gates of the profile passed.
    Pass,
    /// A gate failed.
    Fail,
}

/// `baseline_ref`: the baseline's run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BaselineRef {
    /// As `run_id`, of the baseline's run.
    pub run_id: String,
    /// The user's name of the baseline checkpoint.
    pub model_id: String,
    /// Kind of model: `hf_causal`, `hf_mlm` or `hf_seq2seq`.
    pub adapter: String,
    /// Its metric.
    pub primary_metric: BaselineMetric,
    /// As [`EvaluationReport::metrics`](super::EvaluationReport::metrics), of the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<ReportMetrics>,
    /// Digest of its tokenizer; null if unknown.
    pub tokenizer_hash: Option<String>,
}

/// `baseline_ref.primary_metric`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BaselineMetric {
    /// As [`PrimaryMetric::kind`].
    pub kind: String,
    /// As [`PrimaryMetric::preview`].
    pub preview: f64,
    /// As [`PrimaryMetric::final_`].
    #[serde(rename = "final")]
    pub final_: f64,
}

/// `quality_overhead`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct QualityOverhead {
    /// `ratio` or, of an accuracy, `delta_pp`.
    pub basis: String,
    /// As [`PrimaryMetric::ratio_vs_baseline`] or [`PrimaryMetric::delta_pp`].
    pub value: f64,
    /// As [`PrimaryMetric::kind`].
    pub kind: String,
}
