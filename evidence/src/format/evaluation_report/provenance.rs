//! Where the numbers come from.

use super::PolicyProvenance;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `provenance`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// As `policy_provenance`.
    pub policy: PolicyProvenance,
    /// The baseline's run report.
    pub baseline: SideRef,
    /// The subject's run report.
    pub edited: SideRef,
    /// Environment of the evaluator, as the run report records it.
    pub env_flags: Value,
    /// Digests of the subject's windows and tokenizer.
    pub provider_digest: ProviderDigest,
    /// The same of the baseline.
    pub baseline_provider_digest: BaselineProviderDigest,
    /// Name of the split.
    pub dataset_split: Option<String>,
    /// Always false.
    pub split_fallback: bool,
    /// Windows asked for and measured.
    pub window_plan: WindowPlan,
    /// BLAKE2s (16 bytes) of the ids of the final windows.
    pub window_ids_digest: String,
    /// The same.
    pub window_plan_digest: String,
    /// The subject checkpoint; absent where its digest is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit_digest: Option<EditDigest>,
}

/// A run report that the comparison is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SideRef {
    /// First 16 digits of the SHA-256 of time, name and commit of the run.
    pub run_id: String,
    /// First 16 digits of `report_sha256`.
    pub report_hash: String,
    /// Path, as recorded.
    pub report_path: String,
    /// SHA-256 of its bytes.
    pub report_sha256: String,
    /// SHA-256 over names and digests of the checkpoint's files; null if unknown.
    pub checkpoint_sha256: Option<String>,
}

/// `provider_digest`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProviderDigest {
    /// BLAKE2s (32 bytes) of the sorted window ids.
    pub ids_sha256: String,
    /// Digest of the tokenizer's vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_sha256: Option<String>,
    /// Digest of the masks, where a token is masked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masking_sha256: Option<String>,
}

/// `baseline_provider_digest`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BaselineProviderDigest {
    /// BLAKE2s (32 bytes) of the sorted window ids.
    pub ids_sha256: String,
    /// Digest of the tokenizer's vocabulary; null if unknown.
    pub tokenizer_sha256: Option<String>,
}

/// `window_plan`: windows asked for and measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WindowPlan {
    /// Name of the profile.
    pub profile: String,
    /// Preview windows asked for.
    pub requested_preview: usize,
    /// Final windows asked for.
    pub requested_final: usize,
    /// Always empty.
    pub capacity: Map<String, Value>,
    /// Preview windows measured.
    pub actual_preview: usize,
    /// Final windows measured.
    pub actual_final: usize,
    /// Whether both arms reach the floor of the tier.
    pub coverage_ok: bool,
    /// Tokens of the preview arm, without padding.
    pub preview_total_tokens: u64,
    /// Tokens of the final arm, without padding.
    pub final_total_tokens: u64,
    /// Tokens that the tier asks for.
    pub min_tokens_target: u64,
    /// Whether both arms together have them.
    pub tokens_floor_met: bool,
}

/// `edit_digest`: the subject checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EditDigest {
    /// `report_only`: the edit was made elsewhere.
    pub family: String,
    /// As [`SideRef::checkpoint_sha256`] of the subject.
    pub impl_hash: String,
    /// Always 1.
    pub version: u64,
}

/// `artifacts`: paths as recorded; empty where there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Artifacts {
    /// The subject's `events.jsonl`.
    pub events_path: String,
    /// Always empty.
    pub logs_path: String,
    /// Always null.
    pub checkpoint_path: Option<String>,
    /// The subject's run report.
    pub report_path: String,
    /// Time of the comparison.
    pub generated_at: String,
}

/// `report_build`: how the report was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReportBuild {
    /// The program.
    pub generator: Generator,
    /// Members without a measurement; always empty.
    pub synthesized_fields: Vec<String>,
    /// Members that were corrected; always empty.
    pub repaired_fields: Vec<String>,
    /// Members with a default; always empty.
    pub fallback_fields: Vec<String>,
}

/// `report_build.generator`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Name of this crate.
    pub name: String,
    /// Version of this crate.
    pub version: String,
    /// `baseline_windows`: the report contains the baseline's losses.
    pub pairing_evidence: String,
}
