//! The evaluation report (`evaluation.report.json`), schema `v1`: the comparison of a subject with its baseline.
//!
//! The layout is that of InvarLock 0.8 to 0.12, and its verifiers accept it. Losses are mean cross-entropies in nats a token. Digests are
//! lower-case hexadecimal; SHA-256 unless stated otherwise. Times are UTC, ISO 8601.

mod dataset;
mod guards;
mod metric;
mod policy;
mod provenance;
mod upstream_policy;

pub use dataset::{
    Bootstrap, Coverage, CoverageRow, Dataset, DatasetHash, DatasetTokenizer, DatasetWindows, LossArm,
    LossWindows, Overhead, PairedDeltaSummary, ReportArm, ReportWindows, SystemOverhead, Telemetry,
    WindowStats,
};
pub use guards::{
    Evaluated, EvaluatedOverhead, GuardBlock, GuardEntry, GuardOverhead, NotEvaluated, ParameterCount,
    SkippedOverhead, Structure,
};
pub use metric::{
    Band, BaselineMetric, BaselineRef, Confidence, ConfidenceLabel, PrimaryMetric, QualityOverhead,
    ReportMetrics, SecondaryMetric, Tail, TailStats, TailViolation, Validation, Verdict,
};
pub use policy::{
    AccuracyPolicy, Auto, Hysteresis, InvariantsPolicy, MetricsPolicy, PolicyDigest, PolicyProvenance,
    RatioPolicy, ResolvedPolicy, RmtPolicy, SpectralPolicy, TailPolicy, VariancePolicy,
};
pub use provenance::{
    Artifacts, BaselineProviderDigest, EditDigest, Generator, Provenance, ProviderDigest, ReportBuild,
    SideRef, WindowPlan,
};

pub use upstream_policy::{
    Calibration, FamilyCap, GuardPolicy, MultipleTesting, Scope, TestingMethod, UpstreamRmtPolicy,
    UpstreamSpectralPolicy, UpstreamVariancePolicy, VarianceScope,
};

use super::measurement::Measurement;
use super::to_value;
use super::warning::Warning;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct EvaluationReport {
    /// Always `v1`.
    pub schema_version: String,
    /// First 16 digits of the SHA-256 of time, name and commit of the subject's run.
    pub run_id: String,
    /// The user's label of the edit; otherwise as [`Edit::algorithm`].
    pub edit_name: String,
    /// The subject's run.
    pub meta: Meta,
    /// The edit.
    pub edit: Edit,
    /// Plug-ins; always empty.
    pub plugins: Map<String, Value>,
    /// Settings of the comparison.
    pub context: Context,
    /// The metric that is gated on.
    pub primary_metric: PrimaryMetric,
    /// Tail of the per-window differences.
    pub primary_metric_tail: Tail,
    /// Outcome of each gate of the profile.
    pub validation: Validation,
    /// How well the ratio is known.
    pub confidence: Confidence,
    /// The baseline's run.
    pub baseline_ref: BaselineRef,
    /// Counts of the right answers; absent unless the metric is an accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<ReportMetrics>,
    /// The ratio again, under the name that upstream's readers use.
    pub quality_overhead: QualityOverhead,
    /// Metrics that gate nothing: the loss per byte of text, if the lengths of the texts are known.
    pub secondary_metrics: Vec<SecondaryMetric>,
    /// What the report assures by itself.
    pub assurance: Assurance,
    /// The dataset and its windows.
    pub dataset: Dataset,
    /// Totals of the measurement.
    pub telemetry: Telemetry,
    /// Speed of the subject against that of the baseline.
    pub system_overhead: SystemOverhead,
    /// Windows and losses of the subject.
    pub evaluation_windows: ReportWindows,
    /// Losses of the baseline on the same windows.
    pub baseline_windows: LossWindows,
    /// How each side was measured; absent where a run report of another program does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measurements: Option<Measurements>,
    /// Sizes of both checkpoints.
    pub structure: Structure,
    /// Block of the invariants guard ([`crate::guards::invariants::Block`]).
    pub invariants: GuardBlock,
    /// Every guard in the order of the guard chain.
    pub guards: Vec<GuardEntry>,
    /// Cost of the guards in quality.
    pub guard_overhead: GuardOverhead,
    /// What a reader must know besides the gates; absent where there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Blocks of the other guards, each under the guard's name.
    #[serde(flatten)]
    pub guard_blocks: Map<String, Value>,
    /// The tier.
    pub auto: Auto,
    /// As `resolved_policy`.
    pub policies: ResolvedPolicy,
    /// Thresholds that were applied.
    pub resolved_policy: ResolvedPolicy,
    /// Where the thresholds come from.
    pub policy_provenance: PolicyProvenance,
    /// Digest of the thresholds.
    pub policy_digest: PolicyDigest,
    /// Where the numbers come from.
    pub provenance: Provenance,
    /// Paths of other files of the run.
    pub artifacts: Artifacts,
    /// The program that wrote the report.
    pub report_build: ReportBuild,
}

impl EvaluationReport {
    /// The report as JSON with empty windows, which are most of its size, for readers of anything else.
    pub fn without_windows(&self) -> Value {
        let (evaluation_windows, baseline_windows) = <_>::default();
        to_value(&Self { evaluation_windows, baseline_windows, ..self.clone() })
    }
}

/// How each side was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Measurements {
    /// The baseline.
    pub baseline: Measurement,
    /// The subject.
    pub subject: Measurement,
}

/// `meta`: the subject's run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Meta {
    /// The user's name of the subject checkpoint.
    pub model_id: String,
    /// Kind of model: `hf_causal`, `hf_mlm` or `hf_seq2seq`.
    pub adapter: String,
    /// `cpu`.
    pub device: String,
    /// Time at which the run ended.
    pub ts: String,
    /// Commit of the measured program; may be empty.
    pub commit: String,
    /// Seed of the dataset.
    pub seed: u64,
    /// Profile of the comparison.
    pub profile: String,
    /// Band for final/preview perplexity.
    pub pm_drift_band: Band,
    /// Digest of the subject's tokenizer; null if unknown.
    pub tokenizer_hash: Option<String>,
    /// Family and default loss of the model.
    pub model_profile: Map<String, Value>,
    /// Other members of the run report's `meta`, without those that a gate could be read from.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// `edit`: what distinguishes the subject from the baseline, as far as known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// As [`EvaluationReport::edit_name`].
    pub name: String,
    /// `noop` for checkpoints with equal digests, `custom` otherwise.
    pub algorithm: String,
    /// Always empty.
    pub algorithm_version: String,
    /// Always empty.
    pub implementation: String,
    /// Always empty.
    pub plan_digest: String,
    /// Always empty.
    pub mask_digest: String,
    /// Seed of the dataset.
    pub seed: u64,
}

/// `context`: settings of the comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Name of the profile.
    pub profile: String,
    /// The tier.
    pub auto: ContextAuto,
    /// Assurance mode.
    pub assurance: ContextAssurance,
    /// Always empty.
    pub run: Map<String, Value>,
    /// Settings of the bootstrap.
    pub eval: ContextEval,
    /// Bands of the primary metric.
    pub primary_metric: ContextMetric,
    /// Where the measurement ran.
    pub runtime: ContextRuntime,
    /// Guards that ran.
    pub guard_chain_observed: Vec<String>,
}

/// `context.auto`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ContextAuto {
    /// Always true.
    pub enabled: bool,
    /// Name of the tier.
    pub tier: String,
    /// Always 0.
    pub probes: u64,
}

/// `context.assurance`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ContextAssurance {
    /// Always `off`.
    pub mode: String,
}

/// `context.eval`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ContextEval {
    /// The bootstrap of the confidence interval.
    pub bootstrap: ContextBootstrap,
}

/// `context.eval.bootstrap`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ContextBootstrap {
    /// Number of replicates.
    pub replicates: usize,
    /// One minus the confidence level.
    pub alpha: f64,
    /// Recorded; decides nothing.
    pub ci_band: f64,
}

/// `context.primary_metric`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ContextMetric {
    /// Always empty: the tier's ratio limit applies.
    pub acceptance_range: Map<String, Value>,
    /// Band for final/preview perplexity.
    pub drift_band: Band,
}

/// `context.runtime`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ContextRuntime {
    /// `container` or `host`.
    pub execution_mode: String,
}

/// `assurance`: what the report assures by itself, before its manifest is checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Assurance {
    /// `strict` if every guard was evaluated, under a profile and a tier that InvarLock 0.12 accepts for it; else `off`.
    pub mode: String,
    /// What a strict report claims, as InvarLock 0.12 names it; absent if `mode` is `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_set: Option<String>,
    /// Name of the profile.
    pub profile: String,
    /// Name of the tier.
    pub tier: String,
    /// The full guard chain of upstream.
    pub canonical_guard_chain: Vec<String>,
    /// Whether every guard was evaluated.
    pub canonical_guard_chain_enforced: bool,
    /// Guards that were evaluated. The invariants come first for the baseline and, if all were evaluated, last for the subject.
    pub guard_chain_observed: Vec<String>,
    /// What keeps the report from full assurance.
    pub blocking_reasons: Vec<String>,
    /// Always false.
    pub fallback_fields_used: bool,
    /// Whether all gates of the profile passed.
    pub report_local_verdict: Verdict,
    /// The same.
    pub verdict: Verdict,
    /// `container` or `host`, as the manifest must confirm.
    pub runtime_provenance_declared: String,
    /// Always `pending`: the manifest is written after the report.
    pub runtime_provenance_verification_status: String,
    /// Always false.
    pub runtime_provenance_verified: bool,
}
