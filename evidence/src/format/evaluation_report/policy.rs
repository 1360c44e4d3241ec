//! The thresholds of a comparison.

use super::upstream_policy::{
    GuardPolicy, UpstreamRmtPolicy, UpstreamSpectralPolicy, UpstreamVariancePolicy,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `resolved_policy`: thresholds that were applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ResolvedPolicy {
    /// Thresholds of the metrics.
    pub metrics: MetricsPolicy,
    /// Settings of the invariants guard.
    pub invariants: InvariantsPolicy,
    /// Limits of the spectral guard; absent where it was not evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spectral: Option<GuardPolicy<SpectralPolicy, UpstreamSpectralPolicy>>,
    /// Limits of the RMT guard; absent where it was not evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rmt: Option<GuardPolicy<RmtPolicy, UpstreamRmtPolicy>>,
    /// Limits of the variance guard; absent where it was not evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance: Option<GuardPolicy<VariancePolicy, UpstreamVariancePolicy>>,
}

/// `resolved_policy.metrics`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MetricsPolicy {
    /// Ratio of perplexities.
    pub pm_ratio: RatioPolicy,
    /// Tail of the per-window differences.
    pub pm_tail: TailPolicy,
    /// Accuracy.
    pub accuracy: AccuracyPolicy,
}

/// `pm_ratio`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RatioPolicy {
    /// Largest ratio before `hysteresis_ratio` is added.
    pub ratio_limit_base: f64,
    /// Tokens that both arms together must have.
    pub min_tokens: u64,
    /// Added to the limit.
    pub hysteresis_ratio: f64,
    /// Recorded; decides nothing.
    pub min_token_fraction: f64,
}

/// `pm_tail`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TailPolicy {
    /// `warn`.
    pub mode: String,
    /// Windows from which on the tail is evaluated.
    pub min_windows: usize,
    /// The quantile that is limited, between 0 and 1.
    pub quantile: f64,
    /// Its limit, nats a token.
    pub quantile_max: f64,
    /// Differences above it count as tail mass, nats a token.
    pub epsilon: f64,
    /// Largest tail mass, a share of the windows.
    pub mass_max: f64,
}

/// `accuracy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AccuracyPolicy {
    /// Lower end of the interval of the difference of accuracies that is accepted, percentage points.
    pub delta_min_pp: f64,
    /// Final examples needed under a profile that gates on it.
    pub min_examples: u64,
    /// Subtracted from the limit, percentage points.
    pub hysteresis_delta_pp: f64,
    /// Share of the dataset that the examples must be.
    pub min_examples_fraction: f64,
}

/// Settings of the invariants guard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InvariantsPolicy {
    /// Whether warnings are fatal.
    pub strict_mode: bool,
    /// `monitor`.
    pub on_fail: String,
}

impl Default for InvariantsPolicy {
    fn default() -> Self {
        Self { strict_mode: false, on_fail: "monitor".to_owned() }
    }
}

/// Limits of the spectral guard. A subject fails by one fatal violation, or if more than `max_caps` modules have another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SpectralPolicy {
    /// `compare`: each module is compared with the baseline's.
    pub mode: String,
    /// `all`: every module.
    pub scope: String,
    /// Modules that may have a violation that is not fatal.
    pub max_caps: u64,
    /// Largest ratio of the spectral norms of both sides, the larger divided by the smaller.
    pub norm_ratio_max: f64,
    /// A larger one is fatal.
    pub norm_ratio_fatal: f64,
    /// Smallest correlation with the weights of the baseline.
    pub correlation_min: f64,
    /// A smaller one is fatal.
    pub correlation_fatal: f64,
    /// Smallest ratio of the stable ranks, the subject's divided by the baseline's.
    pub stable_rank_ratio_min: f64,
    /// A smaller one is fatal.
    pub stable_rank_ratio_fatal: f64,
    /// Smallest ratio of the shortest rows or columns, the subject's divided by the baseline's.
    pub weakest_ratio_min: f64,
    /// How the numbers are measured.
    pub measurement_contract: Map<String, Value>,
}

/// Limits of the RMT guard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RmtPolicy {
    /// `compare`: each module is compared with the baseline's.
    pub mode: String,
    /// How far an edge may be from the baseline's: the larger may be 1 + epsilon times the smaller.
    pub epsilon_default: f64,
    /// How the numbers are measured.
    pub measurement_contract: Map<String, Value>,
}

/// Limits of the variance guard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VariancePolicy {
    /// `compare`: each module is compared with the baseline's.
    pub mode: String,
    /// Always true: the guard decides nothing.
    pub monitor_only: bool,
    /// A factor closer to 1 is not reported.
    pub deadband: f64,
}

/// `auto`: the tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Auto {
    /// Name of the tier.
    pub tier: String,
    /// Always 0.
    pub probes_used: u64,
    /// As [`PolicyProvenance::policy_digest`].
    pub policy_digest: String,
}

/// `policy_provenance`: where the thresholds come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyProvenance {
    /// Name of the tier.
    pub tier: String,
    /// Thresholds that the user changed; always empty.
    pub overrides: Vec<Value>,
    /// First 16 digits of the digest of `resolved_policy` and `overrides`.
    pub policy_digest: String,
    /// `contracts`.
    pub validation_allowlist_source: String,
    /// Time of the comparison.
    pub resolved_at: String,
}

/// `policy_digest`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyDigest {
    /// `policy-v1`.
    pub policy_version: String,
    /// Name of the tier.
    pub tier_policy_name: String,
    /// First 16 digits of the digest of `resolved_policy.metrics`.
    pub thresholds_hash: String,
    /// Tolerances of the limits.
    pub hysteresis: Hysteresis,
    /// Always 0.
    pub min_effective: f64,
    /// Always false.
    pub changed: bool,
}

/// Tolerances of the limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Hysteresis {
    /// Of the ratio of perplexities.
    pub ppl: f64,
    /// Of the accuracy, percentage points.
    pub accuracy_delta_pp: f64,
}
