//! The variance guard as InvarLock 0.12 judges (DD-VE): factors for projections, tried on the first windows.
//!
//! InvarLock would apply the factors to an edited model if they lower its losses. It only reports where no edit is applied, as in a
//! comparison of two checkpoints. This program never changes a weight.

mod gate;
mod scales;

use super::super::{Decision, Evaluation, Sides, StatisticsDigests, object};
use crate::format::evaluation_report::{Calibration, UpstreamVariancePolicy};
use crate::format::run_report::EvaluationWindows;
use crate::format::statistics::{ProjectionSquares, VarianceMeasurement};
use crate::numerics::stats::mean;
use crate::policy::{Profile, Tier};
pub use gate::{PredictiveGate, Reason};
pub use scales::{Scales, scales, target};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest relative difference of a loss that was measured twice: windows that pass the model in other groups can differ in last digits.
const LOSS_TOLERANCE: f64 = 1e-5;

/// The `variance` block of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Block {
    /// The subject has projections that the guard knows.
    Evaluated(Box<Evaluated>),
    /// It has none.
    Unsupported(Box<Unsupported>),
}

/// The block of a subject with projections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Evaluated {
    /// Always true.
    pub evaluated: bool,
    /// Always true.
    pub supported: bool,
    /// Always false: nothing is corrected.
    pub enabled: bool,
    /// Always true.
    pub monitor_only: bool,
    /// Always true: the guard decides nothing.
    pub passed: bool,
    /// Always `monitor`.
    pub decision: Decision,
    /// `upstream`.
    pub mode: String,
    /// Always 0: nothing is corrected.
    pub gain: f64,
    /// Mean perplexity of the first windows.
    pub ppl_no_ve: Option<f64>,
    /// The same, since nothing is corrected.
    pub ppl_with_ve: Option<f64>,
    /// Always 1 and 1.
    pub ratio_ci: [f64; 2],
    /// Number of projections.
    pub target_modules: u64,
    /// Their names.
    pub target_module_names: Vec<String>,
    /// Always 0, since nothing is corrected.
    pub proposed_scales: u64,
    /// The factors that would give the outputs of projections the mean square 1.
    pub raw_scales_pre_edit: BTreeMap<String, f64>,
    /// Those that were tried.
    pub proposed_scales_pre_edit: BTreeMap<String, f64>,
    /// The trial.
    pub calibration: Trial,
    /// The gate of a subject that is not corrected: `no_scales`.
    pub predictive_gate: PredictiveGate,
    /// The measurements from which these numbers follow.
    pub statistics_sha256: StatisticsDigests,
    /// The settings.
    pub policy: UpstreamVariancePolicy,
}

/// The block of a subject without projections that the guard knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Unsupported {
    /// Always true: it was looked for projections.
    pub evaluated: bool,
    /// Always false.
    pub supported: bool,
    /// Always false.
    pub enabled: bool,
    /// Always true.
    pub monitor_only: bool,
    /// Always false.
    pub passed: bool,
    /// Always `monitor`.
    pub decision: Decision,
    /// `upstream`.
    pub mode: String,
    /// `unsupported`.
    pub status: String,
    /// `no_variance_targets`.
    pub reason: String,
    /// The measurements from which these numbers follow.
    pub statistics_sha256: StatisticsDigests,
    /// The settings.
    pub policy: UpstreamVariancePolicy,
}

/// The trial of the proposed factors on the first windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Windows asked for.
    pub requested: u64,
    /// Windows that were measured.
    pub coverage: u64,
    /// Windows needed.
    pub min_coverage: u64,
    /// Seed of the intervals.
    pub seed: u64,
    /// How the trial ended.
    pub status: TrialStatus,
    /// Mean perplexity without factors.
    pub ppl_no_ve: Option<f64>,
    /// Mean perplexity with factors.
    pub ppl_with_ve: Option<f64>,
    /// Interval of the mean ratio of both perplexities of a window.
    pub ratio_ci: Option<[f64; 2]>,
    /// The gate, as it would decide of a model that is edited.
    pub predictive_gate: PredictiveGate,
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TrialStatus {
    /// There were no windows.
    NoCalibration,
    /// There were too few windows.
    Insufficient,
    /// No factor was proposed.
    NoScalingRequired,
    /// Both perplexities were measured.
    Complete,
}

/// The projections of a measurement with their factors.
pub fn scales_of(measurement: &VarianceMeasurement, policy: &UpstreamVariancePolicy) -> Scales {
    scales(&measurement.projections, policy)
}

/// Why a measurement contradicts itself or the windows of its run report; none if it does not.
pub(crate) fn contradiction(
    measurement: &VarianceMeasurement,
    windows: &EvaluationWindows,
    policy: &UpstreamVariancePolicy,
) -> Option<&'static str> {
    let arms = || [&windows.preview, &windows.final_].into_iter();
    let ids = || arms().flat_map(|arm| arm.window_ids.iter().copied());
    let tokens = arms().flat_map(|arm| arm.actual_token_counts.iter().copied());
    let losses = arms().flat_map(|arm| arm.logloss.iter().copied());
    let none = measurement.projections.is_empty();
    let tried = if none { 0 } else { measurement.calibration_windows.len() };
    let close = |(one, other): (&f64, f64)| (one - other).abs() <= LOSS_TOLERANCE * other.abs().max(1.0);
    let scales: BTreeMap<String, f64> = scales_of(measurement, policy).proposed.into_iter().collect();
    let squares = |projection: &ProjectionSquares| projection.squares.len() == measurement.windows.len();
    let scaled = if scales.is_empty() { 0 } else { tried };
    match () {
        () if !ids().take(policy.windows()).eq(measurement.windows.iter().copied()) => {
            Some("windows are not the first ones")
        }
        () if !ids()
            .take(policy.calibration.windows as usize)
            .eq(measurement.calibration_windows.iter().copied()) =>
        {
            Some("calibration_windows are not the first ones")
        }
        () if !tokens.take(measurement.calibration_windows.len()).eq(measurement.tokens.iter().copied()) => {
            Some("tokens are not those of the windows")
        }
        () if !measurement.projections.iter().all(squares) => {
            Some("squares has not a number for each window")
        }
        () if measurement.losses.len() != tried => Some("losses has not a number for each window"),
        () if !measurement.losses.iter().zip(losses).all(close) => {
            Some("losses are not those of the windows")
        }
        () if measurement.scales != scales => Some("scales do not follow from squares"),
        () if measurement.scaled_losses.len() != scaled => {
            Some("scaled_losses has not a number for each window")
        }
        () => None,
    }
}

/// What a trial of the factors shows, as for a model that is edited.
pub fn trial(measurement: &VarianceMeasurement, policy: &UpstreamVariancePolicy) -> Trial {
    let Calibration { windows, min_coverage, seed } = policy.calibration;
    let losses = &measurement.losses[..measurement.losses.len().min(windows as usize)];
    let scaled = &measurement.scaled_losses[..measurement.scaled_losses.len().min(losses.len())];
    let perplexity = |losses: &[f64]| -> Vec<f64> { losses.iter().map(|loss| loss.exp()).collect() };
    let (without, with) = (perplexity(losses), perplexity(scaled));
    let coverage = losses.len() as u64;
    let complete = !scaled.is_empty() && scaled.len() == losses.len();
    let (status, reason) = match () {
        () if losses.is_empty() => (TrialStatus::NoCalibration, Reason::NoCalibration),
        () if coverage < min_coverage => (TrialStatus::Insufficient, Reason::InsufficientCoverage),
        () if complete => (TrialStatus::Complete, Reason::CiUnavailable),
        () => (TrialStatus::NoScalingRequired, Reason::NoScales),
    };
    let evaluated = matches!(status, TrialStatus::Complete | TrialStatus::NoScalingRequired);
    let mean_of = |values: &[f64]| (!values.is_empty()).then(|| mean(values));
    let (ratio_ci, predictive_gate) = match status {
        TrialStatus::Complete => {
            let ratios: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with / without).collect();
            let tokens = &measurement.tokens[..measurement.tokens.len().min(losses.len())];
            (gate::ratio_interval(&ratios, policy), PredictiveGate::of(losses, scaled, tokens, policy))
        }
        TrialStatus::NoScalingRequired => {
            (Some((1.0, 1.0)), PredictiveGate::without_numbers(evaluated, reason))
        }
        _ => (None, PredictiveGate::without_numbers(evaluated, reason)),
    };
    Trial {
        requested: windows,
        coverage,
        min_coverage,
        seed,
        status,
        ppl_no_ve: mean_of(&without),
        ppl_with_ve: if complete { mean_of(&with) } else { None },
        ratio_ci: ratio_ci.map(|(low, high)| [low, high]),
        predictive_gate,
    }
}

/// The same of a checkpoint that nothing is done to: no factor is proposed.
pub fn trial_without_scales(measurement: &VarianceMeasurement, policy: &UpstreamVariancePolicy) -> Trial {
    trial(&VarianceMeasurement { scaled_losses: Vec::new(), ..measurement.clone() }, policy)
}

pub(super) fn evaluate(sides: &Sides<'_>) -> Option<Evaluation> {
    let [Some(baseline), Some(subject)] = sides.statistics?.map(|side| side.upstream.as_ref()) else {
        return None;
    };
    let measurement = &subject.variance;
    let digests = StatisticsDigests::of([&baseline.variance, measurement]);
    let policy = UpstreamVariancePolicy::with(sides.profile, sides.tier, sides.request.calibration);
    let block = match measurement.projections.is_empty() {
        true => Block::Unsupported(Box::new(unsupported(digests, policy))),
        false => Block::Evaluated(Box::new(evaluated(measurement, digests, policy))),
    };
    let passed = matches!(block, Block::Evaluated(_));
    let entry = sides.entry("variance", passed, Decision::Monitor);
    Some(Evaluation { block: object(&block), passed, entry })
}

fn evaluated(
    measurement: &VarianceMeasurement,
    statistics_sha256: StatisticsDigests,
    policy: UpstreamVariancePolicy,
) -> Evaluated {
    let found = scales_of(measurement, &policy);
    let without = trial_without_scales(measurement, &policy);
    Evaluated {
        evaluated: true,
        supported: true,
        enabled: false,
        monitor_only: true,
        passed: true,
        decision: Decision::Monitor,
        mode: policy.mode.clone(),
        gain: 0.0,
        ppl_no_ve: without.ppl_no_ve,
        ppl_with_ve: without.ppl_no_ve,
        ratio_ci: [1.0; 2],
        target_modules: measurement.projections.len() as u64,
        target_module_names: measurement.projections.iter().map(|found| found.target.clone()).collect(),
        proposed_scales: 0,
        raw_scales_pre_edit: found.raw.into_iter().collect(),
        proposed_scales_pre_edit: found.proposed.into_iter().collect(),
        calibration: trial(measurement, &policy),
        predictive_gate: without.predictive_gate,
        statistics_sha256,
        policy,
    }
}

fn unsupported(statistics_sha256: StatisticsDigests, policy: UpstreamVariancePolicy) -> Unsupported {
    Unsupported {
        evaluated: true,
        supported: false,
        enabled: false,
        monitor_only: true,
        passed: false,
        decision: Decision::Monitor,
        mode: policy.mode.clone(),
        status: "unsupported".to_owned(),
        reason: "no_variance_targets".to_owned(),
        statistics_sha256,
        policy,
    }
}

impl UpstreamVariancePolicy {
    /// The settings of a profile and a tier, with other calibration windows where they are given.
    pub fn with(profile: Profile, tier: Tier, calibration: Option<Calibration>) -> Self {
        let policy = Self::of(profile, tier);
        Self { calibration: calibration.unwrap_or(policy.calibration), ..policy }
    }

    /// Windows whose outputs are measured.
    pub fn windows(&self) -> usize {
        (self.max_calib / 10).min(50) as usize
    }
}
