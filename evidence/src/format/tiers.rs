//! Limits from a file in the shape of `tiers.yaml` of InvarLock 0.12, which replace those of the tier.

use crate::format::evaluation_report::{RmtPolicy, SpectralPolicy};
use invarlock_error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The limits of all tiers of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TiersFile {
    /// SHA-256 of the file.
    pub sha256: String,
    /// The limits by name of the tier.
    pub limits: BTreeMap<String, TierLimits>,
}

impl TiersFile {
    /// The limits of one tier; none if the file has none for it.
    pub fn of(&self, tier: &str) -> Option<Tiers> {
        self.limits.get(tier).map(|limits| Tiers { sha256: self.sha256.clone(), limits: *limits })
    }
}

/// Limits that `evaluate --tiers FILE` took from a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tiers {
    /// SHA-256 of the file.
    pub sha256: String,
    /// Its limits for the tier.
    pub limits: TierLimits,
}

/// Limits of the comparison with the baseline; an absent one is that of the tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TierLimits {
    /// Largest ratio of the spectral norms of both sides, 1 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_ratio_max: Option<f64>,
    /// Smallest correlation with the weights of the baseline, -1 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_min: Option<f64>,
    /// How far an edge may be from the baseline's, 0 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
}

impl TierLimits {
    /// Refuses limits that no pair of checkpoints can meet, or that mean nothing.
    ///
    /// # Errors
    /// A limit is out of its range.
    pub fn check(&self) -> Result<()> {
        let Self { norm_ratio_max, correlation_min, epsilon } = *self;
        let limits = [
            ("norm_ratio_max", norm_ratio_max, 1.0, f64::MAX),
            ("correlation_min", correlation_min, -1.0, 1.0),
            ("epsilon", epsilon, 0.0, f64::MAX),
        ];
        match limits
            .into_iter()
            .find(|(_, limit, low, high)| limit.is_some_and(|x| !(*low..=*high).contains(&x)))
        {
            Some((name, limit, low, high)) => {
                let range =
                    if high == f64::MAX { format!("{low} or more") } else { format!("{low} to {high}") };
                Err(Error::input(format!("{name} is {}; use a number, {range}", limit.unwrap_or_default())))
            }
            None => Ok(()),
        }
    }

    /// The limits of the spectral guard: those of the tier, replaced. A violation is never fatal within its limit.
    pub(crate) fn spectral(&self, tier: SpectralPolicy) -> SpectralPolicy {
        let norm_ratio_max = self.norm_ratio_max.unwrap_or(tier.norm_ratio_max);
        let correlation_min = self.correlation_min.unwrap_or(tier.correlation_min);
        SpectralPolicy {
            norm_ratio_max,
            norm_ratio_fatal: tier.norm_ratio_fatal.max(norm_ratio_max),
            correlation_min,
            correlation_fatal: tier.correlation_fatal.min(correlation_min),
            ..tier
        }
    }

    /// The limits of the random-matrix guard: those of the tier, replaced.
    pub(crate) fn rmt(&self, tier: RmtPolicy) -> RmtPolicy {
        RmtPolicy { epsilon_default: self.epsilon.unwrap_or(tier.epsilon_default), ..tier }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::policy::Tier;

    #[test]
    fn absent_limits_are_those_of_the_tier() {
        let tier = SpectralPolicy::of(Tier::Balanced);
        assert_eq!(TierLimits::default().spectral(tier.clone()), tier);
        let wide = TierLimits { norm_ratio_max: Some(9.0), correlation_min: Some(0.1), epsilon: Some(2.0) };
        let policy = wide.spectral(tier);
        assert_eq!((policy.norm_ratio_max, policy.norm_ratio_fatal), (9.0, 9.0));
        assert_eq!((policy.correlation_min, policy.correlation_fatal), (0.1, 0.1));
        assert_eq!(wide.rmt(RmtPolicy::of(Tier::Balanced)).epsilon_default, 2.0);
    }

    #[test]
    fn limits_out_of_range_are_refused() {
        let with = |norm_ratio_max, correlation_min, epsilon| TierLimits {
            norm_ratio_max,
            correlation_min,
            epsilon,
        };
        assert!(with(Some(1.0), Some(-1.0), Some(0.0)).check().is_ok());
        for (limits, word) in [
            (with(Some(0.9), None, None), "norm_ratio_max is 0.9; use a number, 1 or more"),
            (with(None, Some(1.5), None), "correlation_min is 1.5; use a number, -1 to 1"),
            (with(None, None, Some(f64::NAN)), "epsilon is NaN"),
            (with(Some(f64::INFINITY), None, None), "norm_ratio_max is inf"),
        ] {
            let error = limits.check().unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
