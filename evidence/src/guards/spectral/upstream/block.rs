//! The `spectral` block of a report.

use super::super::super::contract::Contract;
use super::super::super::{Decision, Evaluation, Sides, StatisticsDigests, object};
use super::{FamilyQuantiles, FamilySummary, Judgement, Metrics, Selection, TopScore, Violation, judge};
use crate::format::evaluation_report::{FamilyCap, MultipleTesting, UpstreamSpectralPolicy};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The block, with the members of InvarLock's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Always true.
    pub evaluated: bool,
    /// Whether no violation is fatal, and at most `max_caps` others count.
    pub passed: bool,
    /// What follows from the outcome.
    pub decision: Decision,
    /// `upstream`.
    pub mode: String,
    /// Violations that count.
    pub caps_applied: u64,
    /// How many of them the tier allows.
    pub max_caps: u64,
    /// Whether there are more.
    pub caps_exceeded: bool,
    /// Numbers over all modules.
    pub summary: Summary,
    /// Scores by family.
    pub families: BTreeMap<String, FamilySummary>,
    /// The limits of the families.
    pub family_caps: BTreeMap<String, FamilyCap>,
    /// Scores above the limit, by family.
    pub caps_applied_by_family: BTreeMap<String, u64>,
    /// Which families count.
    pub multiple_testing: MultipleTesting,
    /// Number of families that are tested.
    pub bh_family_count: u64,
    /// Which families were tested and count.
    pub multiple_testing_selection: Selection,
    /// Quantiles of the absolute scores by family.
    pub family_z_quantiles: BTreeMap<String, FamilyQuantiles>,
    /// The largest absolute scores of each family.
    pub top_z_scores: BTreeMap<String, Vec<TopScore>>,
    /// The score of each module.
    pub final_z_scores: BTreeMap<String, f64>,
    /// The violations that count.
    pub violations: Vec<Violation>,
    /// As in the policy.
    pub sigma_quantile: f64,
    /// As in the policy.
    pub deadband: f64,
    /// The statistics from which these numbers follow.
    pub statistics_sha256: StatisticsDigests,
    /// How the numbers were measured.
    pub measurement_contract: Map<String, Value>,
    /// First digits of its digest.
    pub measurement_contract_hash: String,
    /// As `measurement_contract_hash`.
    pub baseline_measurement_contract_hash: String,
    /// Always true: both sides were measured in one way.
    pub measurement_contract_match: bool,
    /// The limits.
    pub policy: UpstreamSpectralPolicy,
}

/// Numbers over all modules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// `stable` or `capped`.
    pub status: String,
    /// Modules with a score.
    pub modules_checked: u64,
    /// Fatal violations.
    pub fatal_violations: u64,
    /// Largest spectral norm of the subject.
    pub max_spectral_norm: f64,
    /// Mean of the spectral norms of the subject.
    pub mean_spectral_norm: f64,
    /// The same of the baseline. It decides nothing.
    pub baseline_max_spectral_norm: f64,
    /// The same of the baseline. It decides nothing.
    pub baseline_mean_spectral_norm: f64,
    /// `max_spectral_norm` divided by the baseline's; 1 where that is 0.
    pub max_sigma_ratio: f64,
    /// `mean_spectral_norm` divided by the baseline's, as InvarLock has it; 1 where that is 0.
    pub median_sigma_ratio: f64,
    /// As [`Metrics::stability_score`].
    pub stability_score: f64,
    /// As in the policy.
    pub sigma_quantile: f64,
    /// As in the policy.
    pub deadband: f64,
    /// As in the policy.
    pub max_caps: u64,
    /// As in the block.
    pub caps_exceeded: bool,
}

pub(in super::super) fn evaluate(sides: &Sides<'_>) -> Option<Evaluation> {
    let [baseline, subject] = sides.statistics?.map(|side| &side.weights);
    let policy = UpstreamSpectralPolicy::of(sides.tier);
    let reference = judge(baseline, baseline, &policy).metrics;
    let found = judge(subject, subject, &policy);
    let (passed, decision) = (found.passed, found.decision);
    let digests = StatisticsDigests::of([baseline, subject]);
    let block = block(found, &reference, digests, policy);
    Some(Evaluation { block: object(&block), passed, entry: sides.entry("spectral", passed, decision) })
}

fn block(
    found: Judgement,
    baseline: &Metrics,
    statistics_sha256: StatisticsDigests,
    policy: UpstreamSpectralPolicy,
) -> Block {
    let Judgement { passed, decision, metrics, modules, violations } = found;
    let ratio = |now: f64, before: f64| if before > 0.0 { now / before } else { 1.0 };
    let summary = Summary {
        status: if violations.is_empty() { "stable" } else { "capped" }.to_owned(),
        modules_checked: metrics.modules_checked,
        fatal_violations: metrics.fatal_violations,
        max_spectral_norm: metrics.max_spectral_norm,
        mean_spectral_norm: metrics.mean_spectral_norm,
        baseline_max_spectral_norm: baseline.max_spectral_norm,
        baseline_mean_spectral_norm: baseline.mean_spectral_norm,
        max_sigma_ratio: ratio(metrics.max_spectral_norm, baseline.max_spectral_norm),
        median_sigma_ratio: ratio(metrics.mean_spectral_norm, baseline.mean_spectral_norm),
        stability_score: metrics.stability_score,
        sigma_quantile: metrics.sigma_quantile,
        deadband: metrics.deadband,
        max_caps: metrics.max_caps,
        caps_exceeded: metrics.caps_exceeded,
    };
    let above = |(family, summary): (&String, &FamilySummary)| (family.clone(), summary.violations);
    Block {
        evaluated: true,
        passed,
        decision,
        mode: policy.mode.clone(),
        caps_applied: metrics.violations_found,
        max_caps: metrics.max_caps,
        caps_exceeded: metrics.caps_exceeded,
        summary,
        caps_applied_by_family: metrics.family_z_summary.iter().map(above).collect(),
        families: metrics.family_z_summary,
        family_caps: metrics.family_caps,
        bh_family_count: metrics.multiple_testing.m,
        multiple_testing: metrics.multiple_testing,
        multiple_testing_selection: metrics.multiple_testing_selection,
        family_z_quantiles: metrics.family_z_quantiles,
        top_z_scores: metrics.top_z_scores,
        final_z_scores: modules.into_iter().map(|module| (module.module, module.z)).collect(),
        violations,
        sigma_quantile: metrics.sigma_quantile,
        deadband: metrics.deadband,
        statistics_sha256,
        measurement_contract: metrics.measurement_contract,
        measurement_contract_hash: Contract::UpstreamSpectral.hash(),
        baseline_measurement_contract_hash: Contract::UpstreamSpectral.hash(),
        measurement_contract_match: true,
        policy,
    }
}
