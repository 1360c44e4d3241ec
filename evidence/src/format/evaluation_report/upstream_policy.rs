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
