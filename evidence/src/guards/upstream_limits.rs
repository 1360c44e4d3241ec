//! The limits of the guards of InvarLock 0.12, by tier. Those of 0.8 are the same.

use super::contract::Contract;
use crate::format::evaluation_report::{FamilyCap, Scope, UpstreamSpectralPolicy};
use crate::guards::spectral::multiple_testing::{Method, MultipleTesting};
use crate::policy::Tier;

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
            mode: "upstream".to_owned(),
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
