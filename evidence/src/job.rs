//! The job (`/in/job.json`): the request of the launcher to one measuring container.

use crate::format::compute_dtype::ComputeDtype;
use crate::format::dataset::{Answers, Packing, Provider};
use crate::format::guard_request::GuardRequest;
use crate::format::masking::Masking;
use crate::format::metrics::MetricKind;
use crate::format::plan::Dataset;
pub use crate::format::role::Role;
use serde::{Deserialize, Serialize};

/// Contract name that every job contains.
pub const JOB_CONTRACT: &str = "invarlock-measure-v1";

/// What the evaluator does with a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Measure: the output is a [`crate::run_report::RunReport`].
    #[default]
    Measure,
    /// Open and check all that a measurement opens, and compute nothing: the output is a
    /// [`crate::format::check_report::CheckReport`].
    Check,
}

impl Task {
    /// Whether it is the default, which a job does not state.
    fn is_measure(&self) -> bool {
        *self == Task::Measure
    }
}

/// One measuring task. All paths are as the evaluator sees them (`/in/...` in a container).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Always [`JOB_CONTRACT`].
    pub contract: String,
    /// What is done.
    #[serde(default, skip_serializing_if = "Task::is_measure")]
    pub task: Task,
    /// Which side this is.
    pub role: Role,
    /// The name the user gave the checkpoint; recorded, never opened.
    pub model_id: String,
    /// Profile name (`dev`, `ci_cpu`, `ci`, `release`), recorded.
    pub profile: String,
    /// Tier name (`conservative`, `balanced`, `aggressive`), recorded.
    pub tier: String,
    /// Checkpoint directory.
    pub checkpoint: String,
    /// Source of the windows.
    pub windows: WindowSource,
    /// Which rows of a dataset become windows.
    #[serde(default, skip_serializing_if = "Provider::is_default")]
    pub provider: Provider,
    /// Tokens a window, 2 or more.
    pub seq_len: usize,
    /// Recorded; windows do not overlap.
    pub stride: usize,
    /// Windows asked for in the preview arm; of an accuracy, examples.
    pub preview_n: usize,
    /// Windows asked for in the final arm; of an accuracy, examples.
    pub final_n: usize,
    /// Dataset split name, recorded.
    pub split: String,
    /// Dataset seed. It decides the order of rows for the providers `hf_text` and `wikitext2`, and which tokens are masked.
    pub seed: u64,
    /// The metric that is wanted; absent: the perplexity of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<MetricKind>,
    /// Settings of masking; absent: the default ones for a masked language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masking: Option<Masking>,
    /// The type of numbers of the products; absent: single precision.
    #[serde(default, skip_serializing_if = "ComputeDtype::is_default")]
    pub compute_dtype: ComputeDtype,
    /// Whether inputs of layers stay in single precision where a configuration asks for quantised ones; absent: they are quantised.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub weight_only: bool,
    /// What the guards are asked for. Absent where they compare the subject with the baseline.
    #[serde(default, skip_serializing_if = "GuardRequest::is_default")]
    pub guards: GuardRequest,
    /// Worker threads; absent: one a core. The results do not depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// A file with the losses of an interrupted measurement ([`crate::journal::Journal`]), which is resumed; absent: every window is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
}

/// The paths of a job's inputs, as the evaluator sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPaths {
    /// Checkpoint directory.
    pub checkpoint: String,
    /// Dataset files.
    pub dataset: Vec<String>,
    /// Windows of the baseline.
    pub windows: String,
    /// Losses of an interrupted measurement, if it is resumed.
    pub journal: Option<String>,
}

impl Job {
    /// The job of one side. `model_id` is the user's name of its checkpoint; `policy` names profile and tier.
    pub fn new(
        role: Role,
        task: Task,
        model_id: &str,
        policy: (&str, &str),
        dataset: &Dataset,
        paths: JobPaths,
    ) -> Self {
        let windows = match role {
            Role::Baseline => WindowSource::LocalJsonl {
                files: paths.dataset,
                text_field: dataset.text_field.clone(),
                target_field: dataset.target_field.clone(),
                answers: dataset.answers.clone(),
                max_samples: dataset.max_samples,
                packing: dataset.packing,
            },
            Role::Subject => WindowSource::Replay { file: paths.windows },
        };
        Self {
            contract: JOB_CONTRACT.to_owned(),
            task,
            role,
            model_id: model_id.to_owned(),
            profile: policy.0.to_owned(),
            tier: policy.1.to_owned(),
            checkpoint: paths.checkpoint,
            windows,
            provider: dataset.provider,
            seq_len: dataset.seq_len,
            stride: dataset.stride,
            preview_n: dataset.preview_n,
            final_n: dataset.final_n,
            split: dataset.split.clone(),
            seed: dataset.seed,
            metric: dataset.metric,
            masking: dataset.masking,
            compute_dtype: ComputeDtype::default(),
            weight_only: false,
            guards: GuardRequest::default(),
            threads: None,
            journal: paths.journal,
        }
    }
}

/// Where the windows of a job come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum WindowSource {
    /// Select from JSON-lines files, first rows in order (baseline).
    LocalJsonl {
        /// Files in order.
        files: Vec<String>,
        /// Name of the text member of each row, or of the source of a pair.
        text_field: String,
        /// Name of the target of a pair; absent where rows have one text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target_field: Option<String>,
        /// Members that contain choices and the right one; absent unless an accuracy is measured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answers: Option<Answers>,
        /// Rows read at most, over all files.
        max_samples: usize,
        /// How their texts lie in windows.
        #[serde(default, skip_serializing_if = "Packing::is_default")]
        packing: Packing,
    },
    /// Replay the baseline's windows (subject): a file that contains [`crate::run_report::BaselineWindows`].
    Replay {
        /// The file.
        file: String,
    },
}
