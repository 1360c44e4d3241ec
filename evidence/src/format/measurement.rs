//! What an evaluation report says of the measurement of one side, besides its windows and losses.

use super::check_report::CheckpointFacts;
use super::dataset::Packing;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The measurement of one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// The program that measured.
    pub evaluator: Evaluator,
    /// When the run ended, UTC, RFC 3339.
    pub ended_at: String,
    /// Facts about the checkpoint.
    pub checkpoint: CheckpointFacts,
    /// Elements of all parameters, tied ones counted once.
    pub parameter_count: u64,
    /// `meta.model_profile` of the run report.
    pub model_profile: Map<String, Value>,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// How the windows were selected.
    pub selection: Selection,
    /// How long it took.
    pub seconds: Seconds,
    /// Peak resident memory, MiB; null if unknown.
    pub memory_mb_peak: Option<f64>,
}

/// The program that measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Evaluator {
    /// Its version.
    pub version: String,
    /// Name of the matrix kernel, such as `avx2`.
    pub kernel: String,
    /// Worker threads.
    pub threads: usize,
}

/// The tokenizer that made the windows: the baseline's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tokenizer {
    /// Digest of its vocabulary, 32 hexadecimal digits.
    pub hash: String,
    /// Number of tokens, added ones included.
    pub vocab_size: u64,
    /// SHA-256 of how it makes ids from text: all of its definition but the vocabulary. Absent in reports of older evaluators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping_sha256: Option<String>,
    /// `bos_token`, `eos_token`, `pad_token` and `add_prefix_space` of its configuration.
    pub special: Map<String, Value>,
}

/// How the windows were selected from the dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Rows without text.
    pub blank_rows: usize,
    /// Rows with fewer than two tokens.
    pub short_rows: usize,
    /// Reductions because of duplicates: number of duplicates, and windows an arm afterwards.
    pub adjustments: Vec<(usize, usize)>,
    /// How the texts of rows lie in windows.
    #[serde(default, skip_serializing_if = "Packing::is_default")]
    pub packing: Packing,
    /// SHA-256 of the chat template that made texts from conversations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template_sha256: Option<String>,
}

/// Seconds of each phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Seconds {
    /// Opening the checkpoint and reading the weights.
    pub load: f64,
    /// Tokenizing the dataset.
    pub tokenize: f64,
    /// Computing the losses.
    pub eval: f64,
    /// Measuring for the guards; absent where an older evaluator measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guards: Option<f64>,
    /// All of them.
    pub total: f64,
}
