//! The limits that a calibration recommends, in the shape of `tiers.yaml` of InvarLock 0.12.

use super::{null_sweep, ve_sweep};
use crate::guards::spectral::multiple_testing::MultipleTesting;
use serde::Serialize;
use std::collections::BTreeMap;

/// Limits by tier: a part of a `tiers.yaml`.
pub type TiersPatch = BTreeMap<String, TierPatch>;

/// The limits of a tier.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TierPatch {
    /// Of the spectral guard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spectral_guard: Option<SpectralPatch>,
    /// Of the random-matrix guard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rmt_guard: Option<RmtPatch>,
    /// Of the variance guard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance_guard: Option<VariancePatch>,
}

/// Limits of the spectral guard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpectralPatch {
    /// κ by family.
    pub family_caps: BTreeMap<String, f64>,
    /// How families are tested.
    pub multiple_testing: MultipleTesting,
    /// Limits of the comparison with the baseline, which InvarLock 0.12 does not have and ignores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<SpectralCompare>,
}

/// Limits of the comparison of weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SpectralCompare {
    /// Ratio of spectral norms, at most.
    pub norm_ratio_max: f64,
    /// Correlation of weights, at least.
    pub correlation_min: f64,
}

/// Limits of the random-matrix guard.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RmtPatch {
    /// Limits of the comparison with the baseline, which InvarLock 0.12 does not have and ignores.
    pub compare: RmtCompare,
}

/// Limits of the comparison of edges.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RmtCompare {
    /// ε: the larger edge is at most 1 + ε times the smaller.
    pub epsilon: f64,
}

/// Limits of the variance guard.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct VariancePatch {
    /// Gain from which the guard changes weights, nats a token.
    pub min_effect_lognll: f64,
}

/// What a null sweep recommends.
pub fn of_null_sweep(report: &null_sweep::Report) -> TiersPatch {
    let patch = |summary: &null_sweep::Summary| {
        let null_sweep::Recommendations { family_caps, multiple_testing, compare } = &summary.recommendations;
        TierPatch {
            spectral_guard: Some(SpectralPatch {
                family_caps: family_caps.clone(),
                multiple_testing: *multiple_testing,
                compare: compare.map(|limits| SpectralCompare {
                    norm_ratio_max: limits.norm_ratio_max,
                    correlation_min: limits.correlation_min,
                }),
            }),
            rmt_guard: compare.map(|limits| RmtPatch { compare: RmtCompare { epsilon: limits.epsilon } }),
            variance_guard: None,
        }
    };
    report.summaries.iter().map(|(tier, summary)| (tier.clone(), patch(summary))).collect()
}

/// What a sweep of the variance guard recommends.
pub fn of_ve_sweep(report: &ve_sweep::Report) -> TiersPatch {
    let patch = |summary: &ve_sweep::Summary| TierPatch {
        spectral_guard: None,
        rmt_guard: None,
        variance_guard: Some(VariancePatch { min_effect_lognll: summary.recommendations.min_effect_lognll }),
    };
    report.summaries.iter().map(|(tier, summary)| (tier.clone(), patch(summary))).collect()
}
