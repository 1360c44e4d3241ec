//! The sweep of the variance guard: the gain from which it should change weights, so that it seldom does.
//!
//! The formulas are those of `advanced calibrate ve-sweep` of InvarLock 0.8 to 0.12.

use super::{SweepConfig, share_or, three_decimals};
use crate::format::evaluation_report::Calibration;
use crate::guards::variance::upstream;
use crate::policy::Tier;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The margin where the given one is no share.
pub const MARGIN: f64 = 0.0;
/// The rate where the given one is no share.
pub const TARGET_RATE: f64 = 0.05;

/// The predictive gate of the variance guard: the change of the log loss by the proposed scales.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct PredictiveGate {
    /// Whether it was evaluated.
    pub evaluated: bool,
    /// The mean change, nats a token; negative where the scales help.
    pub mean_delta: Option<f64>,
    /// Its confidence interval.
    pub delta_ci: Option<[f64; 2]>,
}

impl From<&upstream::PredictiveGate> for PredictiveGate {
    fn from(gate: &upstream::PredictiveGate) -> Self {
        let [low, high] = gate.delta_ci;
        Self {
            evaluated: gate.evaluated,
            mean_delta: gate.mean_delta,
            delta_ci: low.zip(high).map(|(low, high)| [low, high]),
        }
    }
}

/// The windows on which the guard tries factors in a run of the sweep, and how many it needs: two less, and at least one.
pub fn calibration(windows: u64, seed: u64) -> Calibration {
    Calibration { windows, min_coverage: windows.saturating_sub(2).max(1), seed }
}

/// Whether the sweep takes a gain of a tier only where the mean change is a gain, too. `tiers.yaml` of InvarLock has false for conservative,
/// true for balanced, and nothing for aggressive. The sweep takes a missing value as true, the guard as false.
pub fn one_sided(tier: Tier) -> bool {
    tier != Tier::Conservative
}

impl PredictiveGate {
    /// The gain that is certain: how far the interval is below 0. `one_sided` as the tier has it.
    fn gain(&self, one_sided: bool) -> f64 {
        match self.delta_ci {
            Some([_, high])
                if high < 0.0 && (!one_sided || self.mean_delta.is_some_and(|mean| mean < 0.0)) =>
            {
                -high
            }
            _ => 0.0,
        }
    }

    fn width(&self) -> Option<f64> {
        self.delta_ci.map(|[low, high]| (high - low).abs())
    }
}

/// One run of the sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Name of the tier.
    pub tier: String,
    /// Whether the tier tests on one side only.
    pub one_sided: bool,
    /// Windows on which the guard tries factors.
    pub windows: u64,
    /// The seed that drew the windows.
    pub seed: u64,
    /// Name of the subject; none for the model itself.
    pub subject: Option<String>,
    /// What it found.
    pub gate: PredictiveGate,
}

/// How recommendations follow from observations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Share that is added to a limit.
    pub safety_margin: f64,
    /// Largest share of runs that change weights.
    pub target_enable_rate: f64,
}

/// `ve_sweep_report.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Report {
    /// Always `variance_ve_sweep`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "variance_ve_sweep")))]
    pub kind: &'static str,
    /// When, in UTC: `2026-01-31T12:00:00Z`.
    pub generated_at: String,
    /// What was asked for.
    pub config: SweepConfig,
    /// By tier.
    pub summaries: BTreeMap<String, Summary>,
    /// The width of the interval by tier and windows.
    pub power_curve: Vec<PowerPoint>,
}

/// What the runs of a tier show.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Summary {
    /// Name of the tier.
    pub tier: String,
    /// Runs of this tier.
    pub n_runs: usize,
    /// What was observed.
    pub observed: Observed,
    /// What follows.
    pub recommendations: Recommendations,
}

/// What the runs of a tier had.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Observed {
    /// Runs whose gate was evaluated.
    pub evaluated_runs: usize,
    /// Mean width of the intervals; null without one.
    pub mean_ci_width: Option<f64>,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Recommendations {
    /// Gain from which the guard changes weights, nats a token.
    pub min_effect_lognll: f64,
    /// Share of the runs that have such a gain.
    pub expected_enable_rate: f64,
}

/// The intervals of the runs of a tier with a number of windows.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct PowerPoint {
    /// Name of the tier.
    pub tier: String,
    /// Windows on which the guard tries factors.
    pub windows: u64,
    /// Runs.
    pub runs: usize,
    /// Mean width of their intervals; null without one.
    pub mean_ci_width: Option<f64>,
}

/// The report of a sweep. `generated_at` is the time in UTC.
pub fn report(runs: &[Run], config: SweepConfig, settings: Settings, generated_at: String) -> Report {
    let summaries = config.tiers.iter().map(|tier| (tier.clone(), summary(runs, tier, settings))).collect();
    Report { kind: "variance_ve_sweep", generated_at, summaries, power_curve: power_curve(runs), config }
}

fn summary(runs: &[Run], tier: &str, settings: Settings) -> Summary {
    let runs: Vec<&Run> = runs.iter().filter(|run| run.tier == tier).collect();
    let gains: Vec<f64> = runs.iter().map(|run| run.gate.gain(run.one_sided)).collect();
    Summary {
        tier: tier.to_owned(),
        n_runs: runs.len(),
        observed: Observed {
            evaluated_runs: runs.iter().filter(|run| run.gate.evaluated).count(),
            mean_ci_width: mean(runs.iter().filter_map(|run| run.gate.width())),
        },
        recommendations: recommend(
            gains,
            share_or(settings.target_enable_rate, TARGET_RATE),
            share_or(settings.safety_margin, MARGIN),
        ),
    }
}

/// The largest gain with the margin. The rate is 0 if more than the share `target` of the trials has it.
fn recommend(mut gains: Vec<f64>, target: f64, margin: f64) -> Recommendations {
    gains.sort_by(|a, b| b.total_cmp(a));
    let runs = gains.len();
    let allowed = (target * runs as f64).floor() as usize;
    let largest = gains.first().copied().unwrap_or(0.0);
    // The first gain that is tried is the largest, and so it is the result unless too many runs have it.
    let reach = gains.iter().filter(|gain| **gain >= largest).count();
    let enabled = if reach <= allowed { reach } else { 0 };
    Recommendations {
        min_effect_lognll: three_decimals(largest * (1.0 + margin)),
        expected_enable_rate: enabled as f64 / runs.max(1) as f64,
    }
}

fn power_curve(runs: &[Run]) -> Vec<PowerPoint> {
    let mut points: BTreeMap<(&str, u64), Vec<&Run>> = BTreeMap::new();
    for run in runs {
        points.entry((&run.tier, run.windows)).or_default().push(run);
    }
    let point = |((tier, windows), runs): ((&str, u64), Vec<&Run>)| PowerPoint {
        tier: tier.to_owned(),
        windows,
        runs: runs.len(),
        mean_ci_width: mean(runs.iter().filter_map(|run| run.gate.width())),
    };
    points.into_iter().map(point).collect()
}

/// None without a number.
fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let numbers: Vec<f64> = numbers.collect();
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}
