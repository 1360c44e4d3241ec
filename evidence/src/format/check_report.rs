//! The check report (`check.json`): what a `check` job found in one checkpoint and its dataset, without computing.

use super::objective::Objective;
use super::role::Role;
use super::run_report::BaselineWindows;
pub use super::subject_tokenizer::SubjectTokenizer;
use serde::{Deserialize, Serialize};

/// Contract name that every check report contains.
pub const CHECK_CONTRACT: &str = "invarlock-check-v1";

/// The whole report. It exists only where nothing is wrong; a fault is an error event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckReport {
    /// Always [`CHECK_CONTRACT`].
    pub contract: String,
    /// The side that was checked.
    pub role: Role,
    /// What the checkpoint's model predicts. Absent for `causal`.
    #[serde(default, skip_serializing_if = "Objective::is_causal")]
    pub objective: Objective,
    /// Facts about the checkpoint that a user should know.
    pub checkpoint: CheckpointFacts,
    /// The windows that a measurement would use. Those of the baseline are replayed when the subject is checked.
    pub windows: BaselineWindows,
}

/// Facts about a checkpoint that follow from its configuration and its headers. Members that are absent are unknown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct CheckpointFacts {
    /// `model_type` of its configuration.
    #[serde(default)]
    pub model_type: String,
    /// The type of numbers that the checkpoint runs in, such as `float16`: `dtype` or `torch_dtype` of its configuration, else that of its
    /// weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_dtype: Option<String>,
    /// The type of numbers it is measured in.
    #[serde(default)]
    pub compute_dtype: String,
    /// The largest magnitude of activations, of a checkpoint that runs in float16: inputs and outputs of linear layers, and what one layer
    /// leaves to the next. Absent in a check, and where an interrupted run measured some of the windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_activation: Option<f64>,
    /// How weights are quantised, in words. Absent where all are plain numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// How the inputs of layers are quantised as the configuration asks, in words. Absent where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantised_inputs: Option<String>,
    /// The quantisation of activations that the configuration asks for and the measurement leaves out, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_activations: Option<String>,
    /// Number of tensors that the model does not use.
    #[serde(default)]
    pub unused_tensors: usize,
    /// Names of the first of them.
    #[serde(default)]
    pub unused_tensor_names: Vec<String>,
    /// The tokenizer of a subject, if it is not the one that made the windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<SubjectTokenizer>,
}
