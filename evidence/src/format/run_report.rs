//! The run report (`report.json`): what one container measured about one checkpoint.
//!
//! The layout is that of InvarLock 0.8 to 0.12, whose tools can read it. Unknown members are kept, because reports of those versions are read, too. A run report never contains
//! a `validation` object: that marks an evaluation report. Losses are in nats a token, digests in lower-case hexadecimal.

use super::choices::Choices;
use super::classification::Classification;
#[cfg(feature = "verify")]
use super::json_length;
use super::metrics::{self, Metric};
use super::objective::Objective;
use super::used_ids::used_ids;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Members of a tokenizer's configuration that a report repeats in `data`.
pub const SPECIAL_TOKENS: [&str; 4] = ["bos_token", "eos_token", "pad_token", "add_prefix_space"];

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct RunReport {
    /// The checkpoint and the program that measured it.
    pub meta: RunMeta,
    /// The dataset and its digests.
    pub data: RunData,
    /// The edit; its `name` is `noop` for the baseline and `custom` for the subject.
    pub edit: Map<String, Value>,
    /// Guards of this side, in the order they ran.
    pub guards: Vec<Guard>,
    /// Measured values.
    pub metrics: RunMetrics,
    /// Paths of other files of the run (`events_path`, ...).
    pub artifacts: Map<String, Value>,
    /// Recovery flags; empty in reports of our evaluator.
    pub flags: Map<String, Value>,
    /// Profile, tier, assurance and evaluation settings.
    #[serde(default)]
    pub context: Map<String, Value>,
    /// Digests of windows and tokenizer.
    pub provenance: RunProvenance,
    /// Raw windows and losses.
    pub evaluation_windows: EvaluationWindows,
}

/// `meta` of a run report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct RunMeta {
    /// The user's name of the checkpoint.
    pub model_id: String,
    /// Kind of model: `hf_causal`, `hf_mlm` or `hf_seq2seq`.
    pub adapter: String,
    /// `cpu`.
    pub device: String,
    /// Always empty: the evaluator knows no repository.
    #[serde(default)]
    pub commit: String,
    /// Dataset seed.
    pub seed: u64,
    /// Time at which the run ended, UTC, ISO 8601.
    pub ts: String,
    /// BLAKE2s digest of the tokenizer's vocabulary. It does not depend on the path of the tokenizer.
    pub tokenizer_hash: Option<String>,
    /// `{family, default_loss, invariants[], cert_lints[], module_selectors{}}`.
    #[serde(default)]
    pub model_profile: Map<String, Value>,
    /// Everything else (evaluator version, kernel used, threads, determinism ...).
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// `data` of a run report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct RunData {
    /// Provider kind, such as `local_jsonl` or `local_jsonl_pairs`.
    pub dataset: String,
    /// Split name.
    #[serde(default)]
    pub split: Option<String>,
    /// Tokens a window.
    pub seq_len: usize,
    /// Recorded stride.
    pub stride: usize,
    /// Preview windows measured; of an accuracy, examples.
    pub preview_n: usize,
    /// Final windows measured; of an accuracy, examples.
    pub final_n: usize,
    /// Name of the tokenizer (the user's name of the checkpoint it came from).
    #[serde(default)]
    pub tokenizer_name: Option<String>,
    /// As `meta.tokenizer_hash`.
    #[serde(default)]
    pub tokenizer_hash: Option<String>,
    /// Tokenizer vocabulary size, added tokens included.
    #[serde(default)]
    pub vocab_size: Option<u64>,
    /// SHA-256 of how the tokenizer makes ids from text: all of its definition but the vocabulary. Absent in reports of older evaluators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_mapping_sha256: Option<String>,
    /// The token of each id that occurs in a text of a window, in the order of the ids. Baseline only; absent in reports of older
    /// evaluators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_tokens: Option<Vec<String>>,
    /// BLAKE2s (16 bytes) over length and padded ids of each preview window, little-endian.
    #[serde(default)]
    pub preview_hash: Option<String>,
    /// The same for the final arm.
    #[serde(default)]
    pub final_hash: Option<String>,
    /// BLAKE2s (16 bytes) over `preview_hash` and `final_hash`.
    #[serde(default)]
    pub dataset_hash: Option<String>,
    /// Sum of preview attention masks.
    #[serde(default)]
    pub preview_total_tokens: u64,
    /// Sum of final attention masks.
    #[serde(default)]
    pub final_total_tokens: u64,
    /// Everything else (`bos_token`, `eos_token`, `pad_token`, `loss_type`, ...).
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// One guard's result on one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Guard {
    /// `invariants`, `spectral`, `rmt` or `variance`.
    pub name: String,
    /// False: not run, and `passed` has no meaning.
    #[serde(default = "default_true")]
    pub evaluated: bool,
    /// Whether it passed.
    pub passed: Option<bool>,
    /// `allow`, `monitor`, `block`.
    #[serde(default)]
    pub decision: Option<String>,
    /// Measured values a comparison needs; for `invariants` the checks of [`InvariantChecks`] under `checks`.
    #[serde(default)]
    pub details: Map<String, Value>,
    /// Guard metrics.
    #[serde(default)]
    pub metrics: Map<String, Value>,
    /// Violations found.
    #[serde(default)]
    pub violations: Vec<Value>,
}

fn default_true() -> bool {
    true
}

/// The checks that the invariants guard makes of one checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct InvariantChecks {
    /// Elements of all parameters, tied ones counted once.
    pub parameter_count: u64,
    /// Names of LayerNorm (and RMSNorm) modules, sorted.
    pub layer_norm_paths: Vec<String>,
    /// Module name to number of embeddings.
    pub embedding_vocab_sizes: std::collections::BTreeMap<String, u64>,
    /// `vocab_size` of `config.json`.
    pub config_vocab_size: Option<u64>,
    /// Whether the output projection shares the embedding.
    pub weight_tying: Option<bool>,
    /// First 16 hexadecimal digits of the SHA-256 over sorted `name:shape` lines of the parameters.
    pub structure_hash: String,
    /// Tensors that contain a NaN or an infinity: `parameter::NAME`.
    #[serde(default)]
    pub non_finite: Vec<String>,
}

/// `metrics` of a run report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct RunMetrics {
    /// The primary metric of this side alone.
    pub primary_metric: RunPrimaryMetric,
    /// Weighted mean loss of the preview arm.
    #[serde(default)]
    pub logloss_preview: Option<f64>,
    /// Weighted mean loss of the final arm.
    #[serde(default)]
    pub logloss_final: Option<f64>,
    /// Counts of the right answers; absent unless the metric is an accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// Everything else (`latency_ms_per_tok`, `throughput_tok_per_s`, `memory_mb_peak`, timings ...).
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// `metrics.primary_metric`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct RunPrimaryMetric {
    /// `ppl_causal`, `ppl_mlm`, `ppl_seq2seq` or `accuracy`.
    pub kind: String,
    /// Perplexity of the preview arm, or its accuracy: the share of examples that are answered right.
    pub preview: Option<f64>,
    /// The same of the final arm.
    #[serde(rename = "final")]
    pub final_: Option<f64>,
    /// Everything else (`unit`, `direction`, `invalid`, ...).
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// `provenance` of a run report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct RunProvenance {
    /// `ids_sha256`, `tokenizer_sha256` and, when any token is masked out, `masking_sha256`.
    #[serde(default)]
    pub provider_digest: Map<String, Value>,
    /// Everything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Raw windows of both arms.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct EvaluationWindows {
    /// Windows that check drift.
    pub preview: WindowArm,
    /// Windows that are gated on.
    #[serde(rename = "final")]
    pub final_: WindowArm,
}

/// One arm: parallel arrays, one element a window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct WindowArm {
    /// Unique over both arms; preview starts at 0, final after it.
    pub window_ids: Vec<u64>,
    /// Mean cross-entropy over the shifted, unmasked labels, nats a token.
    pub logloss: Vec<f64>,
    /// Padded token ids, `seq_len` each.
    pub input_ids: Vec<Vec<u32>>,
    /// 1 for a real token, 0 for padding.
    pub attention_masks: Vec<Vec<u8>>,
    /// Weights: sum of the mask for the perplexity of causal models, number of labels for others.
    pub token_counts: Vec<u64>,
    /// As `token_counts`.
    #[serde(default)]
    pub masked_token_counts: Vec<u64>,
    /// Sum of the mask.
    #[serde(default)]
    pub actual_token_counts: Vec<u64>,
    /// The token to predict at each position, else -100. For the perplexity of causal models, the ids where the mask is 1.
    #[serde(default)]
    pub labels: Vec<Vec<i64>>,
    /// The examples of an accuracy, to which the windows belong in order; absent for other metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<Vec<Choices>>,
    /// Text of the predicted tokens: those with a label, without the first of a causal model. The tokenizer decodes them alone; special
    /// tokens are written as their text, and bytes that are no UTF-8 as U+FFFD. Final windows of the baseline only; absent in reports of
    /// older evaluators, and where the tokenizer cannot decode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_texts: Option<Vec<String>>,
    /// Length of each of `predicted_texts`, bytes of UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_utf8_bytes: Option<Vec<u64>>,
}

impl RunReport {
    /// Whether everything but the windows is that of another report.
    #[cfg(feature = "verify")]
    pub(crate) fn same_but_windows(&self, other: &Self) -> bool {
        let Self {
            meta,
            data,
            edit,
            guards,
            metrics,
            artifacts,
            flags,
            context,
            provenance,
            evaluation_windows: _,
        } = self;
        (meta, data, edit, guards, metrics, artifacts, flags, context, provenance)
            == (
                &other.meta,
                &other.data,
                &other.edit,
                &other.guards,
                &other.metrics,
                &other.artifacts,
                &other.flags,
                &other.context,
                &other.provenance,
            )
    }

    /// The windows without their losses, as the subject's container gets those of the baseline.
    pub fn windows(&self) -> BaselineWindows {
        let labelled = self.labelled();
        let arm = |arm: &WindowArm| ReplayArm {
            window_ids: arm.window_ids.clone(),
            input_ids: arm.input_ids.clone(),
            attention_masks: arm.attention_masks.clone(),
            labels: labelled.then(|| arm.labels.clone()),
            examples: arm.examples.clone(),
        };
        let EvaluationWindows { preview, final_ } = &self.evaluation_windows;
        self.baseline_windows([arm(preview), arm(final_)])
    }

    /// The number of bytes of [`Self::windows`] as JSON.
    #[cfg(feature = "verify")]
    pub(crate) fn windows_length(&self) -> u64 {
        let labelled = self.labelled();
        let empty = |arm: &WindowArm| ReplayArm {
            window_ids: arm.window_ids.clone(),
            labels: labelled.then(Vec::new),
            examples: arm.examples.clone(),
            ..ReplayArm::default()
        };
        // Nearly all of it are rows, whose length is counted without writing them.
        let rows = |arm: &WindowArm| {
            let labels = if labelled { rows_length(&arm.labels) - EMPTY } else { 0 };
            rows_length(&arm.input_ids) + rows_length(&arm.attention_masks) - 2 * EMPTY + labels
        };
        let EvaluationWindows { preview, final_ } = &self.evaluation_windows;
        let others = json_length(&self.baseline_windows([empty(preview), empty(final_)]));
        others + rows(preview) + rows(final_)
    }

    /// Whether the labels do not follow from the ids, as those of the perplexity of a causal model do.
    fn labelled(&self) -> bool {
        metrics::named(&self.metrics.primary_metric.kind).is_some_and(Metric::has_labels)
    }

    fn objective(&self) -> Objective {
        let metric = metrics::named(&self.metrics.primary_metric.kind);
        metric.map_or(Objective::Causal, |metric| metric.objective)
    }

    fn baseline_windows(&self, [preview, final_]: [ReplayArm; 2]) -> BaselineWindows {
        let data = &self.data;
        let special = |name: &&str| Some(((*name).to_owned(), data.more.get(*name)?.clone()));
        let tokenizer = data.used_tokens.as_ref().map(|tokens| WindowsTokenizer {
            vocab_size: data.vocab_size.unwrap_or_default(),
            mapping_sha256: data.tokenizer_mapping_sha256.clone().unwrap_or_default(),
            special: SPECIAL_TOKENS.iter().filter_map(special).collect(),
            used_tokens: tokens.clone(),
        });
        BaselineWindows {
            tokenizer_hash: self.meta.tokenizer_hash.clone(),
            objective: self.objective(),
            tokenizer,
            preview,
            final_,
        }
    }
}

/// The bytes of an empty list.
#[cfg(feature = "verify")]
const EMPTY: u64 = 2;

/// The number of bytes of rows as JSON.
#[cfg(feature = "verify")]
fn rows_length<T: Copy + Into<i64>>(rows: &[Vec<T>]) -> u64 {
    let list = |elements: usize| EMPTY + elements.saturating_sub(1) as u64;
    let digits = |value: T| -> u64 {
        let value: i64 = value.into();
        u64::from(value.unsigned_abs().checked_ilog10().unwrap_or(0) + 1) + u64::from(value < 0)
    };
    let row = |row: &Vec<T>| list(row.len()) + row.iter().map(|value| digits(*value)).sum::<u64>();
    list(rows.len()) + rows.iter().map(row).sum::<u64>()
}

/// The baseline's windows, as the subject's container gets them: without losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BaselineWindows {
    /// The baseline's tokenizer digest, compared with the subject's own.
    pub tokenizer_hash: Option<String>,
    /// What the baseline predicts; absent for causal models.
    #[serde(default, skip_serializing_if = "Objective::is_causal")]
    pub objective: Objective,
    /// More about that tokenizer. Absent where an older evaluator measured the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<WindowsTokenizer>,
    /// Preview windows.
    pub preview: ReplayArm,
    /// Final windows.
    #[serde(rename = "final")]
    pub final_: ReplayArm,
}

/// The tokenizer that made the windows: what the subject's report repeats of it, and what its own tokenizer is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WindowsTokenizer {
    /// As `data.vocab_size` of the baseline's run report.
    pub vocab_size: u64,
    /// As `data.tokenizer_mapping_sha256`.
    pub mapping_sha256: String,
    /// [`SPECIAL_TOKENS`] as configured.
    pub special: Map<String, Value>,
    /// As `data.used_tokens`.
    pub used_tokens: Vec<String>,
}

impl BaselineWindows {
    /// Numbers of examples with choices of both arms; none where windows are no choices.
    pub fn examples(&self) -> Option<[usize; 2]> {
        Some([self.preview.examples.as_ref()?.len(), self.final_.examples.as_ref()?.len()])
    }

    /// Numbers of preview and final windows.
    pub fn counts(&self) -> [usize; 2] {
        [self.preview.window_ids.len(), self.final_.window_ids.len()]
    }

    /// The ids that occur in the texts of the windows and in their labels, sorted. Padding does not count.
    pub fn used_ids(&self) -> Vec<u32> {
        let arms = [&self.preview, &self.final_];
        used_ids(arms.map(|arm| (&arm.input_ids[..], &arm.attention_masks[..], arm.labels.as_deref())))
    }
}

impl EvaluationWindows {
    /// As [`BaselineWindows::used_ids`]. The labels of a causal model repeat its ids.
    pub fn used_ids(&self) -> Vec<u32> {
        let arms = [&self.preview, &self.final_];
        used_ids(arms.map(|arm| (&arm.input_ids[..], &arm.attention_masks[..], Some(&arm.labels[..]))))
    }
}

/// One arm to be replayed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReplayArm {
    /// Window ids.
    pub window_ids: Vec<u64>,
    /// Padded token ids.
    pub input_ids: Vec<Vec<u32>>,
    /// Masks.
    pub attention_masks: Vec<Vec<u8>>,
    /// The token to predict at each position, else -100; absent where all tokens of a causal model are predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<Vec<i64>>>,
    /// As [`WindowArm::examples`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<Vec<Choices>>,
}

#[cfg(all(test, feature = "verify"))]
mod tests {
    use super::*;

    #[test]
    fn length_of_windows_is_that_of_their_json() {
        let text = include_str!("../../tests/data/honest/root/baseline.report.json");
        let mut report: RunReport = serde_json::from_str(text).expect("a run report");
        for kind in ["ppl_causal", "ppl_mlm"] {
            report.metrics.primary_metric.kind = kind.to_owned();
            let arms = &mut report.evaluation_windows;
            arms.preview.labels.push(vec![-100, 0, 9, 10, i64::MAX, i64::MIN]);
            arms.final_.input_ids.push(Vec::new());
            arms.final_.attention_masks.clear();
            assert_eq!(report.windows_length(), json_length(&report.windows()), "{kind}");
        }
    }
}
