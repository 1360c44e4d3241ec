//! The limits of the guards that compare statistics of baseline and subject, by tier.
//!
//! They lie between what honest subjects and damaged ones measure; docs/guards.md has the table.

use super::contract::Contract;
use crate::format::evaluation_report::{RmtPolicy, SpectralPolicy, VariancePolicy};
use crate::policy::Tier;

impl SpectralPolicy {
    pub(crate) fn of(tier: Tier) -> Self {
        let (norm_ratio_max, norm_ratio_fatal, correlation_min) = match tier {
            Tier::Conservative => (1.25, 1.5, 0.8),
            Tier::Balanced => (1.5, 2.0, 0.7),
            Tier::Aggressive => (2.0, 3.0, 0.6),
        };
        Self {
            mode: "compare".to_owned(),
            scope: "all".to_owned(),
            max_caps: tier.spectral_caps(),
            norm_ratio_max,
            norm_ratio_fatal,
            correlation_min,
            correlation_fatal: 0.5,
            // As InvarLock 0.12 limits them.
            stable_rank_ratio_min: 0.5,
            stable_rank_ratio_fatal: 0.25,
            weakest_ratio_min: 0.25,
            measurement_contract: Contract::Spectral.content(),
        }
    }
}

impl RmtPolicy {
    pub(crate) fn of(tier: Tier) -> Self {
        Self {
            mode: "compare".to_owned(),
            epsilon_default: match tier {
                Tier::Conservative => 0.2,
                Tier::Balanced => 0.25,
                Tier::Aggressive => 0.5,
            },
            measurement_contract: Contract::Rmt.content(),
        }
    }
}

impl VariancePolicy {
    pub(crate) fn of(tier: Tier) -> Self {
        Self {
            mode: "compare".to_owned(),
            monitor_only: true,
            // As InvarLock 0.12 has it.
            deadband: match tier {
                Tier::Conservative => 0.03,
                Tier::Balanced => 0.02,
                Tier::Aggressive => 0.12,
            },
        }
    }
}
