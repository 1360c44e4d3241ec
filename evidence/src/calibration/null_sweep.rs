//! The null sweep: subjects that are known to be good, and limits of the guards that let them pass.
//!
//! κ of a family is its largest z-score with a safety margin. α is halved until few enough runs have a finding. Both are the formulas of
//! `advanced calibrate null-sweep` of InvarLock 0.8 to 0.12. The limits of the comparison with the baseline are the extremes with the
//! same margin.

use super::{SweepConfig, share_or, three_decimals};
use crate::format::evaluation_report::UpstreamSpectralPolicy;
use crate::format::statistics::WeightStatistics;
use crate::guards::spectral::multiple_testing::MultipleTesting;
use crate::guards::spectral::upstream::judge;
use crate::policy::Tier;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The margin where the given one is no share.
pub const MARGIN: f64 = 0.05;
/// The rate where the given one is no share.
pub const TARGET_RATE: f64 = 0.01;
/// The smallest α that is tried.
const LEAST_ALPHA: f64 = 1e-6;
/// How often α is halved.
const HALVINGS: usize = 20;

/// What the spectral guard of InvarLock 0.12 says of the subject of one run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SpectralRun {
    /// The largest z-score of each family.
    pub max_z: BTreeMap<String, f64>,
    /// The largest absolute z-score of each family.
    pub max_abs_z: BTreeMap<String, f64>,
    /// Candidates by family.
    pub candidates: BTreeMap<String, u64>,
    /// The smallest p-value of each family that has a candidate.
    pub p_values: BTreeMap<String, f64>,
    /// Families whose candidates count.
    pub selected: BTreeSet<String>,
    /// Violations by family.
    pub violations: BTreeMap<String, u64>,
    /// Violations that are not fatal.
    pub caps_applied: u64,
    /// Whether there are more than the tier allows.
    pub caps_exceeded: bool,
    /// How families were tested.
    pub multiple_testing: MultipleTesting,
}

impl SpectralRun {
    /// Judges the weights of a subject with the limits of a tier.
    pub fn of(modules: &[WeightStatistics], tier: Tier) -> Self {
        let policy = UpstreamSpectralPolicy::of(tier);
        let judged = judge(modules, modules, &policy);
        let metrics = judged.metrics;
        let selection = metrics.multiple_testing_selection;
        let families = judged.violations.into_iter().map(|violation| (violation.family, 1));
        Self {
            max_z: metrics
                .family_z_summary
                .into_iter()
                .map(|(family, scores)| (family, scores.max))
                .collect(),
            max_abs_z: (metrics.family_z_quantiles.into_iter())
                .map(|(family, sizes)| (family, sizes.max))
                .collect(),
            candidates: selection.family_violation_counts,
            p_values: selection.family_pvalues,
            selected: selection.families_selected.into_iter().collect(),
            violations: total(families),
            caps_applied: metrics.caps_applied,
            caps_exceeded: metrics.caps_exceeded,
            multiple_testing: policy.multiple_testing,
        }
    }
}

/// How far one run's subject is from its baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distance {
    /// The largest ratio of spectral norms.
    pub norm_ratio: f64,
    /// The smallest correlation of weights.
    pub correlation: f64,
    /// The largest ratio of edges.
    pub edge_ratio: f64,
}

/// One run of the sweep, judged by one tier.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Name of the tier.
    pub tier: String,
    /// The seed that drew the windows.
    pub seed: u64,
    /// Name of the subject; none for the model itself.
    pub subject: Option<String>,
    /// The spectral guard.
    pub spectral: SpectralRun,
    /// The comparison with the baseline; none for the model itself, which is equal to it.
    pub distance: Option<Distance>,
}

/// How recommendations follow from observations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Share that is added to a limit.
    pub safety_margin: f64,
    /// Largest share of runs with a finding.
    pub target_any_warning_rate: f64,
}

/// `null_sweep_report.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Report {
    /// Always `spectral_null_sweep`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "spectral_null_sweep")))]
    pub kind: &'static str,
    /// When, in UTC: `2026-01-31T12:00:00Z`.
    pub generated_at: String,
    /// What was asked for.
    pub config: SweepConfig,
    /// By tier.
    pub summaries: BTreeMap<String, Summary>,
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
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Observed {
    /// Share of runs with a finding of the spectral guard.
    pub any_warning_rate: f64,
    /// Runs in which a family was selected.
    pub selected_by_family_runs: BTreeMap<String, u64>,
    /// Candidates of all runs.
    pub candidate_violations_by_family_total: BTreeMap<String, u64>,
    /// The largest z-score.
    pub family_max_z: BTreeMap<String, f64>,
    /// The extremes of the comparison with the baseline, where subjects were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<Extremes>,
}

/// The extremes of the comparison with the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Extremes {
    /// The largest ratio of spectral norms.
    pub max_norm_ratio: f64,
    /// The smallest correlation of weights.
    pub min_correlation: f64,
    /// The largest ratio of edges.
    pub max_edge_ratio: f64,
}

/// Limits that let the runs pass.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Recommendations {
    /// κ by family.
    pub family_caps: BTreeMap<String, f64>,
    /// How families are tested.
    pub multiple_testing: MultipleTesting,
    /// Limits of the comparison with the baseline, where subjects were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<CompareLimits>,
}

/// Limits of the comparison with the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct CompareLimits {
    /// Ratio of spectral norms, at most.
    pub norm_ratio_max: f64,
    /// Correlation of weights, at least.
    pub correlation_min: f64,
    /// ε of the random-matrix guard.
    pub epsilon: f64,
}

impl CompareLimits {
    fn of(extremes: Extremes, margin: f64) -> Self {
        Self {
            norm_ratio_max: three_decimals(extremes.max_norm_ratio * (1.0 + margin)),
            correlation_min: three_decimals(extremes.min_correlation * (1.0 - margin)),
            epsilon: three_decimals(extremes.max_edge_ratio * (1.0 + margin) - 1.0),
        }
    }
}

/// The report of a sweep. `generated_at` is the time in UTC.
pub fn report(runs: &[Run], config: SweepConfig, settings: Settings, generated_at: String) -> Report {
    let summaries = config.tiers.iter().map(|tier| (tier.clone(), summary(runs, tier, settings))).collect();
    Report { kind: "spectral_null_sweep", generated_at, config, summaries }
}

/// The summary of the runs of a tier, of which there is at least one.
fn summary(runs: &[Run], tier: &str, settings: Settings) -> Summary {
    let runs: Vec<&Run> = runs.iter().filter(|run| run.tier == tier).collect();
    let spectral: Vec<&SpectralRun> = runs.iter().map(|run| &run.spectral).collect();
    let margin = share_or(settings.safety_margin, MARGIN);
    let target = share_or(settings.target_any_warning_rate, TARGET_RATE);
    let warned = spectral.iter().filter(|run| run.caps_applied > 0 || !run.violations.is_empty()).count();
    let rate = warned as f64 / spectral.len().max(1) as f64;
    let family_max_z = family_max_z(&spectral);
    let compare = extremes(&runs);
    let mut multiple_testing =
        spectral.last().map_or_else(MultipleTesting::default, |run| run.multiple_testing);
    if rate > target {
        multiple_testing.alpha = alpha(&spectral, multiple_testing, target);
    }
    Summary {
        tier: tier.to_owned(),
        n_runs: runs.len(),
        recommendations: Recommendations {
            family_caps: (family_max_z.iter())
                .map(|(family, z)| (family.clone(), three_decimals(z * (1.0 + margin))))
                .collect(),
            multiple_testing,
            compare: compare.map(|extremes| CompareLimits::of(extremes, margin)),
        },
        observed: Observed {
            any_warning_rate: rate,
            selected_by_family_runs: total(
                spectral.iter().flat_map(|run| run.selected.iter().map(|family| (family.clone(), 1))),
            ),
            candidate_violations_by_family_total: total(
                spectral.iter().flat_map(|run| run.candidates.clone()),
            ),
            family_max_z,
            compare,
        },
    }
}

/// The largest of the z-scores and their absolute values, as InvarLock 0.12 takes them.
fn family_max_z(runs: &[&SpectralRun]) -> BTreeMap<String, f64> {
    let mut largest = BTreeMap::new();
    for (family, z) in runs.iter().flat_map(|run| run.max_z.iter().chain(&run.max_abs_z)) {
        let known = largest.entry(family.clone()).or_insert(f64::NEG_INFINITY);
        *known = z.max(*known);
    }
    largest.retain(|_, z| z.is_finite());
    largest
}

/// The first α of α, α/2, … with which at most the share `target` of the runs has a selected family; α if there is none.
fn alpha(runs: &[&SpectralRun], tested: MultipleTesting, target: f64) -> f64 {
    let rate = |alpha: f64| {
        let tested = MultipleTesting { alpha, ..tested };
        let found = runs.iter().filter(|run| !tested.rejected(&run.p_values).is_empty()).count();
        found as f64 / runs.len().max(1) as f64
    };
    let halved = std::iter::successors(Some(tested.alpha), |alpha| Some(alpha * 0.5));
    let tried = halved.take(HALVINGS).take_while(|alpha| *alpha > LEAST_ALPHA).chain([LEAST_ALPHA]);
    tried.into_iter().find(|alpha| rate(*alpha) <= target).unwrap_or(tested.alpha)
}

/// None without a comparison.
fn extremes(runs: &[&Run]) -> Option<Extremes> {
    let distances = runs.iter().filter_map(|run| run.distance);
    distances.fold(None, |known, distance| {
        let known =
            known.unwrap_or(Extremes { max_norm_ratio: 1.0, min_correlation: 1.0, max_edge_ratio: 1.0 });
        Some(Extremes {
            max_norm_ratio: known.max_norm_ratio.max(distance.norm_ratio),
            min_correlation: known.min_correlation.min(distance.correlation),
            max_edge_ratio: known.max_edge_ratio.max(distance.edge_ratio),
        })
    })
}

fn total(counts: impl Iterator<Item = (String, u64)>) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    for (family, count) in counts {
        *totals.entry(family).or_default() += count;
    }
    totals
}
