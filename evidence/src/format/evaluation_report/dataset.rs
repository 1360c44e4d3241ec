//! The dataset, its windows and what was measured on them.

use super::super::choices::Choices;
use super::super::run_report::WindowArm;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// `dataset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Kind of provider: `local_jsonl` or `local_jsonl_pairs`.
    pub provider: String,
    /// Name of the split.
    pub split: Option<String>,
    /// Tokens a window, padding included.
    pub seq_len: usize,
    /// Distance of two windows in tokens.
    pub stride: usize,
    /// Number of windows and statistics of their pairing.
    pub windows: DatasetWindows,
    /// Digests of the windows.
    pub hash: DatasetHash,
    /// The subject's tokenizer.
    pub tokenizer: DatasetTokenizer,
}

/// `dataset.windows`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DatasetWindows {
    /// Windows of the preview arm; of an accuracy, examples. The same holds for all numbers of windows beside it.
    pub preview: usize,
    /// Windows of the final arm.
    #[serde(rename = "final")]
    pub final_: usize,
    /// Seed of the dataset.
    pub seed: u64,
    /// Statistics of the pairing.
    pub stats: WindowStats,
}

/// `dataset.windows.stats`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WindowStats {
    /// Preview windows asked for.
    pub requested_preview: usize,
    /// Final windows asked for.
    pub requested_final: usize,
    /// Preview windows measured.
    pub actual_preview: usize,
    /// Final windows measured.
    pub actual_final: usize,
    /// Whether both arms reach the floor of the tier.
    pub coverage_ok: bool,
    /// Windows and replicates against the floors of the tier.
    pub coverage: Coverage,
    /// The bootstrap of the confidence interval.
    pub bootstrap: Bootstrap,
    /// Final minus preview loss of the subject.
    pub paired_delta_summary: PairedDeltaSummary,
    /// Share of windows with a partner on the other side: 1.
    pub window_match_fraction: f64,
    /// Share of windows that overlap: 0.
    pub window_overlap_fraction: f64,
    /// `paired_baseline`.
    pub pairing: String,
    /// Number of pairs in the final arm.
    pub paired_windows: usize,
}

/// Windows and replicates against the floors of a tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// Name of the tier.
    pub tier: String,
    /// Windows of the preview arm.
    pub preview: CoverageRow,
    /// Windows of the final arm.
    #[serde(rename = "final")]
    pub final_: CoverageRow,
    /// Bootstrap replicates.
    pub replicates: CoverageRow,
}

impl Coverage {
    /// Whether both arms have enough windows.
    pub fn windows_ok(&self) -> bool {
        self.preview.ok && self.final_.ok
    }
}

/// A number against its floor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CoverageRow {
    /// The number.
    pub used: usize,
    /// The floor.
    pub required: usize,
    /// Whether the number reaches the floor.
    pub ok: bool,
}

/// `dataset.windows.stats.bootstrap`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// Always true.
    pub enabled: bool,
    /// `bca_paired_delta_log`.
    pub method: String,
    /// One minus the confidence level.
    pub alpha: f64,
    /// Number of replicates.
    pub replicates: usize,
    /// Seed before the offset of the comparison is added.
    pub seed: u64,
    /// Recorded; decides nothing.
    pub ci_band: f64,
    /// Share of windows that occur more than once: 0.
    pub window_duplicate_fraction: f64,
    /// As [`WindowStats::window_match_fraction`].
    pub window_match_fraction: f64,
    /// As [`WindowStats::coverage`].
    pub coverage: Coverage,
}

/// `paired_delta_summary`: final minus preview log-loss of the subject, window by window, nats a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PairedDeltaSummary {
    /// Difference of the means, each weighted by its tokens.
    pub mean: Option<f64>,
    /// Mean of the differences.
    pub mean_unweighted: f64,
    /// Mean of the differences, weighted by the preview's tokens.
    pub mean_preview_weighted: Option<f64>,
    /// Sample standard deviation.
    pub std: f64,
    /// Smallest difference.
    pub min: Option<f64>,
    /// Largest difference.
    pub max: Option<f64>,
    /// Whether there is a single pair or no variation.
    pub degenerate: bool,
    /// `single_pair` or `no_variation`; null otherwise.
    pub degenerate_reason: Option<String>,
}

/// `dataset.hash`: digests and totals of the subject's windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DatasetHash {
    /// BLAKE2s (16 bytes) of the preview windows behind `blake2s:`.
    pub preview: String,
    /// The same of the final windows.
    #[serde(rename = "final")]
    pub final_: String,
    /// BLAKE2s (16 bytes) of both.
    pub dataset: String,
    /// Tokens of the preview arm, without padding.
    pub preview_tokens: u64,
    /// Tokens of the final arm, without padding.
    pub final_tokens: u64,
    /// Tokens of both arms.
    pub total_tokens: u64,
    /// `explicit_preview_final_hashes`.
    pub source: String,
}

/// `dataset.tokenizer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DatasetTokenizer {
    /// The user's name of the checkpoint that the tokenizer came from.
    pub name: Option<String>,
    /// Digest of its vocabulary.
    pub hash: Option<String>,
    /// Size of its vocabulary, added tokens included.
    pub vocab_size: Option<u64>,
    /// Token for the beginning of a text; null if none.
    pub bos_token: Value,
    /// Token for the end of a text; null if none.
    pub eos_token: Value,
    /// Padding token; null if none.
    pub pad_token: Value,
    /// Whether a space is added in front of a text; null if unknown.
    pub add_prefix_space: Value,
}

/// `telemetry`: totals of the measurement. Counts of tokens are written as floating-point numbers, as upstream writes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// `cpu`.
    pub device: String,
    /// Tokens of the preview arm.
    pub preview_total_tokens: f64,
    /// Tokens of the final arm.
    pub final_total_tokens: f64,
    /// Tokens of both arms that have a loss.
    pub masked_tokens_total: f64,
    /// The same of the preview arm.
    pub masked_tokens_preview: f64,
    /// The same of the final arm.
    pub masked_tokens_final: f64,
    /// One line for logs.
    pub summary_line: String,
    /// Mean time a token, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms_per_tok: Option<Number>,
    /// Tokens a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput_tok_per_s: Option<Number>,
    /// Peak memory of the evaluator, MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb_peak: Option<Number>,
}

/// `system_overhead`: speed of both sides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SystemOverhead {
    /// Time a token, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms_p50: Option<Overhead>,
    /// Tokens a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput_sps: Option<Overhead>,
}

/// One measure of both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Overhead {
    /// The baseline's.
    pub baseline: f64,
    /// The subject's.
    pub edited: f64,
    /// Subject minus baseline.
    pub delta: f64,
    /// Subject divided by baseline.
    pub ratio: f64,
}

/// `evaluation_windows`: the subject's windows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReportWindows {
    /// Windows that check drift.
    pub preview: ReportArm,
    /// Windows that are gated on.
    #[serde(rename = "final")]
    pub final_: ReportArm,
}

/// One arm: parallel arrays, one element a window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReportArm {
    /// Unique over both arms.
    pub window_ids: Vec<u64>,
    /// Mean cross-entropy, nats a token.
    pub logloss: Vec<f64>,
    /// Token ids, padded to `seq_len`.
    pub input_ids: Vec<Vec<u32>>,
    /// 1 for a real token, 0 for padding.
    pub attention_masks: Vec<Vec<u8>>,
    /// Weights: predicted tokens; tokens without padding for causal models.
    pub token_counts: Vec<u64>,
    /// As `token_counts`, or empty.
    pub masked_token_counts: Vec<u64>,
    /// Tokens without padding, or empty.
    pub actual_token_counts: Vec<u64>,
    /// The token to predict at each position, else -100. Absent for the perplexity of causal models: there they are the ids where the mask is 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Vec<i64>>,
    /// The examples of an accuracy, to which the windows belong in order; absent for other metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<Vec<Choices>>,
}

impl ReportArm {
    /// An arm of a run report, with its labels if they do not follow from the rest.
    pub fn of(arm: &WindowArm, labelled: bool) -> Self {
        Self {
            window_ids: arm.window_ids.clone(),
            logloss: arm.logloss.clone(),
            input_ids: arm.input_ids.clone(),
            attention_masks: arm.attention_masks.clone(),
            token_counts: arm.token_counts.clone(),
            masked_token_counts: arm.masked_token_counts.clone(),
            actual_token_counts: arm.actual_token_counts.clone(),
            labels: if labelled { arm.labels.clone() } else { Vec::new() },
            examples: arm.examples.clone(),
        }
    }
}

/// `baseline_windows`: the baseline's losses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LossWindows {
    /// Windows that check drift.
    pub preview: LossArm,
    /// Windows that are gated on.
    #[serde(rename = "final")]
    pub final_: LossArm,
}

/// Losses of one arm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LossArm {
    /// As [`ReportArm::window_ids`].
    pub window_ids: Vec<u64>,
    /// Mean cross-entropy, nats a token.
    pub logloss: Vec<f64>,
    /// As [`ReportArm::token_counts`].
    pub token_counts: Vec<u64>,
}

impl From<&WindowArm> for LossArm {
    fn from(arm: &WindowArm) -> Self {
        Self {
            window_ids: arm.window_ids.clone(),
            logloss: arm.logloss.clone(),
            token_counts: arm.token_counts.clone(),
        }
    }
}
