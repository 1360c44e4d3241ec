//! The limits of the guards of InvarLock 0.12, by tier. Those of 0.8 are the same.

use super::contract::Contract;
use crate::format::evaluation_report::{
    Calibration, FamilyCap, Scope, UpstreamRmtPolicy, UpstreamSpectralPolicy, UpstreamVariancePolicy,
    VarianceScope,
};
use crate::guards::spectral::multiple_testing::{Method, MultipleTesting};
use crate::policy::{Profile, Tier};

/// `mode` of these policies and of the blocks of the guards.
const MODE: &str = "upstream";

impl UpstreamSpectralPolicy {
    /// The limits of a tier.
    pub fn of(tier: Tier) -> Self {
        let (sigma_quantile, deadband, scope, kappas, method, alpha) = match tier {
            Tier::Conservative => {
                (0.9, 0.05, Scope::Ffn, [3.849, 2.6, 2.8, 2.8], Method::Bonferroni, 0.000_625)
            }
            Tier::Balanced => (0.95, 0.1, Scope::All, [3.849, 3.018, 1.05, 0.0], Method::Bh, 0.05),
            Tier::Aggressive => (0.98, 0.15, Scope::Ffn, [3.849, 3.5, 2.5, 3.5], Method::Bh, 0.000_781_25),
        };
        let families = ["ffn", "attn", "embed", "other"].into_iter().zip(kappas);
        Self {
            mode: MODE.to_owned(),
            scope,
            sigma_quantile,
            deadband,
            max_caps: tier.spectral_caps(),
            max_spectral_norm: None,
            family_caps: families.map(|(family, kappa)| (family.to_owned(), FamilyCap { kappa })).collect(),
            multiple_testing: MultipleTesting { method, alpha, m: 4 },
            correction_enabled: false,
            ignore_preview_inflation: true,
            measurement_contract: Contract::UpstreamSpectral.content(),
        }
    }
}

impl UpstreamRmtPolicy {
    /// The limits of every tier.
    pub fn new() -> Self {
        let families = ["ffn", "attn", "embed", "other"];
        Self {
            mode: MODE.to_owned(),
            epsilon_default: 0.01,
            epsilon_by_family: families.map(|family| (family.to_owned(), 0.01)).into(),
            measurement_contract: Contract::UpstreamRmt.content(),
        }
    }
}

impl Default for UpstreamRmtPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl UpstreamVariancePolicy {
    /// The settings of a profile and a tier.
    pub fn of(profile: Profile, tier: Tier) -> Self {
        let shared = Self {
            mode: MODE.to_owned(),
            monitor_only: true,
            scope: VarianceScope::Ffn,
            clamp: [0.85, 1.12],
            deadband: 0.02,
            min_abs_adjust: 0.012,
            max_scale_step: 0.03,
            topk_backstop: 1,
            max_adjusted_modules: 1,
            predictive_gate: true,
            predictive_one_sided: true,
            min_effect_lognll: 0.0,
            alpha: 0.05,
            max_calib: 200,
            calibration: Calibration { windows: 8, min_coverage: 6, seed: 123 },
        };
        let of_tier = match tier {
            Tier::Balanced => shared,
            Tier::Conservative => Self {
                deadband: 0.03,
                min_abs_adjust: 0.02,
                max_scale_step: 0.015,
                topk_backstop: 0,
                max_adjusted_modules: 0,
                predictive_one_sided: false,
                min_effect_lognll: 0.016,
                max_calib: 160,
                calibration: Calibration { windows: 10, min_coverage: 8, seed: 42 },
                ..shared
            },
            Tier::Aggressive => Self {
                scope: VarianceScope::Both,
                clamp: [0.3, 3.0],
                deadband: 0.12,
                // InvarLock's tier does not set the others, so those of its guard without a tier apply.
                max_adjusted_modules: 0,
                predictive_one_sided: false,
                min_effect_lognll: 0.033,
                max_calib: 240,
                calibration: Calibration { windows: 6, min_coverage: 4, seed: 456 },
                ..shared
            },
        };
        match profile {
            Profile::Release => Self { max_calib: 320, ..of_tier },
            _ => of_tier,
        }
    }
}
