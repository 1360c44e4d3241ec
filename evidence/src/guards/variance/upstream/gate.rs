//! The predictive gate of the variance guard of InvarLock 0.12: whether the factors lower the losses of the calibration windows.

use crate::format::evaluation_report::UpstreamVariancePolicy;
use crate::numerics::bootstrap::{Interval, Method, Settings, paired_interval};
use crate::numerics::stats::weighted_mean;
use serde::{Deserialize, Serialize};

/// Replicates of each interval.
const REPLICATES: usize = 500;

/// Added to the seed of the interval of the gate.
const SEED_OFFSET: u64 = 211;

/// The outcome of the gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PredictiveGate {
    /// Whether there was something to evaluate.
    pub evaluated: bool,
    /// Whether the factors would lower the losses by enough.
    pub passed: bool,
    /// Why.
    pub reason: Reason,
    /// Interval of the mean difference of the losses, with factors less without, nats a token.
    pub delta_ci: [Option<f64>; 2],
    /// The same with the other sign.
    pub gain_ci: [Option<f64>; 2],
    /// The mean difference, weighted by tokens.
    pub mean_delta: Option<f64>,
}

/// Why the gate passed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The policy has no gate.
    Disabled,
    /// There are no windows.
    NoCalibration,
    /// There are too few windows.
    InsufficientCoverage,
    /// No factor was proposed.
    NoScales,
    /// There is no interval.
    CiUnavailable,
    /// The interval contains 0, or ends above it.
    CiContainsZero,
    /// The losses do not fall.
    MeanNotNegative,
    /// The losses rise.
    RegressionDetected,
    /// The losses fall by less than the policy asks for.
    GainBelowThreshold,
    /// The losses fall by enough.
    CiGainMet,
}

impl PredictiveGate {
    /// A gate without numbers.
    pub(super) fn without_numbers(evaluated: bool, reason: Reason) -> Self {
        Self {
            evaluated,
            passed: reason == Reason::Disabled,
            reason,
            delta_ci: [None; 2],
            gain_ci: [None; 2],
            mean_delta: None,
        }
    }

    /// From losses without and with factors, and the tokens of each window.
    pub(super) fn of(
        losses: &[f64],
        scaled: &[f64],
        tokens: &[u64],
        policy: &UpstreamVariancePolicy,
    ) -> Self {
        let deltas: Vec<f64> = scaled.iter().zip(losses).map(|(with, without)| with - without).collect();
        let mean_delta = weighted_mean(&deltas, tokens);
        let weights: Vec<f64> = tokens.iter().map(|count| *count as f64).collect();
        let settings = Settings {
            method: Method::Bca,
            replicates: REPLICATES,
            alpha: policy.alpha,
            seed: policy.calibration.seed.wrapping_add(SEED_OFFSET),
        };
        let interval = paired_interval(scaled, losses, Some(&weights), &settings).ok();
        let Some((interval, mean_delta)) = interval.zip(mean_delta) else {
            return Self::without_numbers(true, Reason::CiUnavailable);
        };
        let reason = match policy.predictive_gate {
            true => outcome(mean_delta, interval, policy),
            false => Reason::Disabled,
        };
        Self {
            evaluated: true,
            passed: matches!(reason, Reason::CiGainMet | Reason::Disabled),
            reason,
            delta_ci: [Some(interval.0), Some(interval.1)],
            gain_ci: [Some(-interval.1), Some(-interval.0)],
            mean_delta: Some(mean_delta),
        }
    }
}

fn outcome(mean: f64, (low, high): Interval, policy: &UpstreamVariancePolicy) -> Reason {
    let least = policy.min_effect_lognll;
    let too_small =
        || if mean > -least || high > -least { Reason::GainBelowThreshold } else { Reason::CiGainMet };
    match policy.predictive_one_sided {
        true if high >= 0.0 => Reason::CiContainsZero,
        false if low <= 0.0 && high >= 0.0 => Reason::CiContainsZero,
        false if low > 0.0 && low >= least && mean >= least => Reason::RegressionDetected,
        false if low > 0.0 => Reason::MeanNotNegative,
        // InvarLock looks at the bound first where the interval is two-sided.
        false if high > -least => Reason::GainBelowThreshold,
        _ if mean >= 0.0 => Reason::MeanNotNegative,
        _ => too_small(),
    }
}

/// Interval of the mean of the ratios of the perplexities of each window.
pub(super) fn ratio_interval(ratios: &[f64], policy: &UpstreamVariancePolicy) -> Option<Interval> {
    let settings = Settings {
        method: Method::Percentile,
        replicates: REPLICATES,
        alpha: policy.alpha,
        seed: policy.calibration.seed,
    };
    paired_interval(ratios, &vec![0.0; ratios.len()], None, &settings).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Profile, Tier};

    #[test]
    fn one_sided_and_two_sided_gates_differ() {
        let policy = |tier, least| UpstreamVariancePolicy {
            min_effect_lognll: least,
            ..UpstreamVariancePolicy::of(Profile::Ci, tier)
        };
        let (one, two) = (policy(Tier::Balanced, 0.01), policy(Tier::Conservative, 0.01));
        assert!(one.predictive_one_sided && !two.predictive_one_sided);
        for (mean, interval, of_one, of_two) in [
            (-0.02, (-0.03, 0.001), Reason::CiContainsZero, Reason::CiContainsZero),
            (0.02, (0.012, 0.03), Reason::CiContainsZero, Reason::RegressionDetected),
            (0.02, (0.002, 0.03), Reason::CiContainsZero, Reason::MeanNotNegative),
            (0.001, (-0.03, -0.02), Reason::MeanNotNegative, Reason::MeanNotNegative),
            (-0.02, (-0.03, -0.005), Reason::GainBelowThreshold, Reason::GainBelowThreshold),
            (-0.005, (-0.03, -0.02), Reason::GainBelowThreshold, Reason::GainBelowThreshold),
            (-0.02, (-0.03, -0.015), Reason::CiGainMet, Reason::CiGainMet),
        ] {
            assert_eq!(outcome(mean, interval, &one), of_one, "{mean} {interval:?}");
            assert_eq!(outcome(mean, interval, &two), of_two, "{mean} {interval:?}");
        }
    }
}
