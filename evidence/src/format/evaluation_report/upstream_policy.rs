//! The limits of the guards as InvarLock 0.12 has them, which `--guards upstream` applies.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Limits of the spectral guard of InvarLock 0.12.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpstreamSpectralPolicy {
    /// `upstream`: each module is compared with its family.
    pub mode: String,
    /// Which modules are checked.
    pub scope: Scope,
    /// Quantile of the norms that is reported as `target_sigma`; decides nothing.
    pub sigma_quantile: f64,
    /// Relative change of a norm that counts as none, in a family whose norms are all equal.
    pub deadband: f64,
    /// Violations that are not fatal and that a subject may have.
    pub max_caps: u64,
    /// Larger norms are fatal; none: no limit.
    pub max_spectral_norm: Option<f64>,
    /// The limit of the z-scores of each family.
    pub family_caps: BTreeMap<String, FamilyCap>,
    /// Which families with z-scores above their limit count.
    pub multiple_testing: MultipleTesting,
    /// Always false: no weight is changed.
    pub correction_enabled: bool,
    /// Always true; decides nothing.
    pub ignore_preview_inflation: bool,
    /// How the numbers are measured, and the limits of degenerate matrices.
    pub measurement_contract: Map<String, Value>,
}

/// Which modules the spectral guard checks, by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Every matrix.
    All,
    /// Attention.
    Attn,
    /// Feed-forward modules.
    Ffn,
}

/// The limit of a family.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FamilyCap {
    /// Largest absolute z-score.
    pub kappa: f64,
}

/// How families are tested together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MultipleTesting {
    /// The method.
    pub method: TestingMethod,
    /// The rate of errors, above 0 and at most 1.
    pub alpha: f64,
    /// Tests that are counted at least.
    pub m: u64,
}

/// A method of [`MultipleTesting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TestingMethod {
    /// Benjamini and Hochberg: bounds the share of false findings.
    Bh,
    /// Bonferroni: bounds the probability of a false finding.
    Bonferroni,
}

impl Default for MultipleTesting {
    fn default() -> Self {
        Self { method: TestingMethod::Bh, alpha: 0.05, m: 4 }
    }
}

/// Limits of the RMT guard of InvarLock 0.12.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpstreamRmtPolicy {
    /// `upstream`: the largest edge of each family is compared with that before an edit.
    pub mode: String,
    /// How much the edge of a family may grow, relative to that before an edit.
    pub epsilon_default: f64,
    /// The same of families with their own limit.
    pub epsilon_by_family: BTreeMap<String, f64>,
    /// How the numbers are measured.
    pub measurement_contract: Map<String, Value>,
}

/// Settings of the variance guard of InvarLock 0.12.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpstreamVariancePolicy {
    /// `upstream`: factors would give the outputs of projections the mean square 1.
    pub mode: String,
    /// Always true: no weight is changed.
    pub monitor_only: bool,
    /// Which projections are looked at.
    pub scope: VarianceScope,
    /// Smallest and largest factor.
    pub clamp: [f64; 2],
    /// A factor closer to 1 is none.
    pub deadband: f64,
    /// A factor closer to 1 is not proposed.
    pub min_abs_adjust: f64,
    /// Proposed factors differ from 1 by this at most; 0: no limit.
    pub max_scale_step: f64,
    /// If it is not 0, the largest factor is proposed where no other is.
    pub topk_backstop: u64,
    /// Most factors that are proposed; 0: no limit.
    pub max_adjusted_modules: u64,
    /// Whether factors must lower the losses.
    pub predictive_gate: bool,
    /// Whether a rise of the losses is no finding of its own.
    pub predictive_one_sided: bool,
    /// By how much the losses must fall, nats a token.
    pub min_effect_lognll: f64,
    /// One less the level of the intervals.
    pub alpha: f64,
    /// A tenth of it is the number of windows whose outputs are measured, 50 at most.
    pub max_calib: u64,
    /// The windows on which factors are tried.
    pub calibration: Calibration,
}

/// Which projections the variance guard looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum VarianceScope {
    /// Those of feed-forward modules.
    Ffn,
    /// Those of attention.
    Attn,
    /// Both.
    Both,
}

/// The windows on which factors are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The first windows of the preview arm and then of the final arm, so many at most.
    pub windows: u64,
    /// Fewer are too few.
    pub min_coverage: u64,
    /// Seed of the intervals.
    pub seed: u64,
}

/// Limits of a guard, in one of two modes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum GuardPolicy<C, U> {
    /// The subject is compared with the baseline.
    Compare(C),
    /// As InvarLock 0.12 judges.
    Upstream(U),
}
