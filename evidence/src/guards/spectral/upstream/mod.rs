//! The spectral guard as InvarLock 0.12 judges: the z-score of the spectral norm of each module among those of its family.
//!
//! InvarLock 0.8 to 0.12 take mean and standard deviation of a family, and the norms of the reference, from the checkpoint before an edit.
//! Where two checkpoints are compared, that is the subject itself. [`judge`] gets both, so a caller passes the same modules twice.

mod block;
mod detect;
mod family;
mod selection;

use super::super::Decision;
use super::compare::Severity;
use super::multiple_testing::MultipleTesting;
use crate::format::evaluation_report::{FamilyCap, UpstreamSpectralPolicy};
use crate::format::statistics::WeightStatistics;
use crate::numerics::stats::{mean, quantile_sorted};
pub(super) use block::evaluate;
pub use block::{Block, Summary};
use detect::{Families, Modules};
pub use selection::{Selection, two_sided_p_value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What the guard says of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Whether no violation is fatal, and at most `max_caps` others count.
    pub passed: bool,
    /// What follows.
    pub decision: Decision,
    /// The numbers, as `metrics` of InvarLock's run report.
    pub metrics: Metrics,
    /// The modules that were checked, in the order of the statistics.
    pub modules: Vec<ModuleScore>,
    /// The violations that count, fatal ones first.
    pub violations: Vec<Violation>,
}

/// The score of a module.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleScore {
    /// Name of the module.
    pub module: String,
    /// Its family.
    pub family: &'static str,
    /// Its spectral norm in single precision.
    pub sigma: f64,
    /// How many standard deviations it is above the mean of its family.
    pub z: f64,
}

/// The numbers of the guard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Modules with a score.
    pub modules_checked: u64,
    /// Violations that count.
    pub violations_found: u64,
    /// Those that are not fatal.
    pub budgeted_violations: u64,
    /// Those that are not fatal, and those of families that are not selected.
    pub candidate_budgeted_violations: u64,
    /// Fatal violations.
    pub fatal_violations: u64,
    /// Largest spectral norm.
    pub max_spectral_norm: f64,
    /// Mean of the spectral norms.
    pub mean_spectral_norm: f64,
    /// 1 less the share of candidates among the modules, 0 at least.
    pub stability_score: f64,
    /// Scores by family.
    pub family_z_summary: BTreeMap<String, FamilySummary>,
    /// The limits.
    pub family_caps: BTreeMap<String, FamilyCap>,
    /// As in the policy.
    pub sigma_quantile: f64,
    /// As in the policy.
    pub deadband: f64,
    /// As in the policy.
    pub max_caps: u64,
    /// As `budgeted_violations`.
    pub caps_applied: u64,
    /// Whether they are more than `max_caps`.
    pub caps_exceeded: bool,
    /// As in the policy.
    pub multiple_testing: MultipleTesting,
    /// Which families count.
    pub multiple_testing_selection: Selection,
    /// As in the policy.
    pub measurement_contract: Map<String, Value>,
    /// Quantiles of the absolute scores by family.
    pub family_z_quantiles: BTreeMap<String, FamilyQuantiles>,
    /// The largest absolute scores of each family, three at most.
    pub top_z_scores: BTreeMap<String, Vec<TopScore>>,
}

/// The scores of a family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FamilySummary {
    /// The largest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
    /// Modules.
    pub count: u64,
    /// Scores above the limit of the family.
    pub violations: u64,
    /// The limit of the family, if it has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kappa: Option<f64>,
}

/// Quantiles of the absolute scores of a family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FamilyQuantiles {
    /// The 95 % quantile.
    pub q95: f64,
    /// The 99 % quantile.
    pub q99: f64,
    /// The largest.
    pub max: f64,
    /// Modules.
    pub count: u64,
}

/// One of the largest absolute scores of a family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TopScore {
    /// Name of the module.
    pub module: String,
    /// Its absolute score.
    pub z: f64,
    /// Its family.
    pub family: String,
}

/// A module that exceeds a limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// What exceeds it.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Whether it is fatal.
    pub severity: Severity,
    /// Name of the module.
    pub module: String,
    /// Its family.
    pub family: String,
    /// Its score, of [`Kind::FamilyZCap`].
    pub z_score: Option<f64>,
    /// What was measured: the absolute score, the norm, or the ratio to the reference.
    pub value: f64,
    /// Its limit.
    pub limit: f64,
    /// The violation in words.
    pub message: String,
    /// Probability of a larger score, where there is one.
    pub p_value: Option<f64>,
    /// Whether it counts.
    pub selected: bool,
}

/// What exceeds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The absolute score.
    FamilyZCap,
    /// The spectral norm.
    MaxSpectralNorm,
    /// The stable rank fell.
    DegeneracyStableRankDrop,
    /// The shortest row or column became shorter.
    DegeneracyNormCollapse,
}

/// Largest scores of a family that are listed.
const TOP: usize = 3;

/// Judges the modules of a checkpoint. `reference` gives mean and standard deviation of each family, and stable rank and shortest row of
/// each module; InvarLock passes the modules themselves.
pub fn judge(
    reference: &[WeightStatistics],
    modules: &[WeightStatistics],
    policy: &UpstreamSpectralPolicy,
) -> Judgement {
    let before = Modules::checked(reference, policy.scope);
    let after = Modules::checked(modules, policy.scope);
    let scores = after.scores(&before, &Families::of(&before), policy.deadband);
    let found = detect::violations(&before, &after, &scores, policy);
    let (fatal, mut candidates): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|violation| violation.severity == Severity::Fatal);
    let selection = selection::select(&mut candidates, policy.multiple_testing);
    let (all, fatal_count) = (candidates.len(), fatal.len());
    let violations: Vec<Violation> =
        fatal.into_iter().chain(candidates.into_iter().filter(|candidate| candidate.selected)).collect();
    let caps = violations.len() - fatal_count;
    let caps_exceeded = caps as u64 > policy.max_caps;
    let passed = fatal_count == 0 && !caps_exceeded;
    let norms: Vec<f64> = scores.iter().map(|score| score.sigma).collect();
    let share = (all + fatal_count) as f64 / scores.len().max(1) as f64;
    let metrics = Metrics {
        modules_checked: scores.len() as u64,
        violations_found: violations.len() as u64,
        budgeted_violations: caps as u64,
        candidate_budgeted_violations: all as u64,
        fatal_violations: fatal_count as u64,
        max_spectral_norm: norms.iter().copied().fold(0.0, f64::max),
        mean_spectral_norm: if norms.is_empty() { 0.0 } else { mean(&norms) },
        stability_score: 1.0 - share.min(1.0),
        family_z_summary: by_family(&scores, |family, scores| {
            summary(scores, policy.family_caps.get(family))
        }),
        family_caps: policy.family_caps.clone(),
        sigma_quantile: policy.sigma_quantile,
        deadband: policy.deadband,
        max_caps: policy.max_caps,
        caps_applied: caps as u64,
        caps_exceeded,
        multiple_testing: policy.multiple_testing,
        multiple_testing_selection: selection,
        measurement_contract: policy.measurement_contract.clone(),
        family_z_quantiles: by_family(&scores, |_, scores| quantiles(scores)),
        top_z_scores: by_family(&scores, |_, scores| top(scores)),
    };
    let decision = Decision::of(passed, violations.is_empty());
    Judgement { passed, decision, metrics, modules: scores, violations }
}

/// Something of the scores of each family.
fn by_family<T>(scores: &[ModuleScore], of: impl Fn(&str, &[&ModuleScore]) -> T) -> BTreeMap<String, T> {
    let mut families: BTreeMap<&str, Vec<&ModuleScore>> = BTreeMap::new();
    for score in scores {
        families.entry(score.family).or_default().push(score);
    }
    families.into_iter().map(|(family, scores)| (family.to_owned(), of(family, &scores))).collect()
}

fn summary(scores: &[&ModuleScore], cap: Option<&FamilyCap>) -> FamilySummary {
    let scores: Vec<f64> = scores.iter().map(|score| score.z).collect();
    let above = |cap: &FamilyCap| scores.iter().filter(|z| **z > cap.kappa).count();
    FamilySummary {
        max: scores.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        mean: mean(&scores),
        count: scores.len() as u64,
        violations: cap.map_or(0, above) as u64,
        kappa: cap.map(|cap| cap.kappa),
    }
}

fn quantiles(scores: &[&ModuleScore]) -> FamilyQuantiles {
    let mut sizes: Vec<f64> = scores.iter().map(|score| score.z.abs()).collect();
    sizes.sort_unstable_by(f64::total_cmp);
    FamilyQuantiles {
        q95: quantile_sorted(&sizes, 0.95),
        q99: quantile_sorted(&sizes, 0.99),
        max: sizes.last().copied().unwrap_or_default(),
        count: sizes.len() as u64,
    }
}

fn top(scores: &[&ModuleScore]) -> Vec<TopScore> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.z.abs().total_cmp(&a.z.abs()));
    let entry = |score: &&ModuleScore| TopScore {
        module: score.module.clone(),
        z: score.z.abs(),
        family: score.family.to_owned(),
    };
    sorted.iter().take(TOP).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Tier;

    fn module(name: &str, norm: f64) -> WeightStatistics {
        WeightStatistics {
            module: name.to_owned(),
            shape: [4, 8],
            spectral_norm: norm,
            frobenius_norm: 2.0 * norm,
            weakest: 0.5,
            sketch: Vec::new(),
        }
    }

    /// Ten modules of a family: nine with the norm 1, and one with another.
    fn attention(last: f64) -> Vec<WeightStatistics> {
        let name = |i: usize| format!("layers.{i}.self_attn.q_proj");
        (0..10).map(|i| module(&name(i), if i == 9 { last } else { 1.0 })).collect()
    }

    fn policy(kappa: f64) -> UpstreamSpectralPolicy {
        let mut policy = UpstreamSpectralPolicy::of(Tier::Balanced);
        policy.family_caps.insert("attn".to_owned(), FamilyCap { kappa });
        policy
    }

    #[test]
    fn one_module_has_a_high_score_among_its_family() {
        let modules = attention(11.0);
        let found = judge(&modules, &modules, &policy(2.9));
        // The mean is 2 and the standard deviation 3.
        assert_eq!(found.modules[9].z, 3.0);
        assert_eq!(found.metrics.family_z_summary["attn"].violations, 1);
        assert_eq!(found.metrics.top_z_scores["attn"][0].module, modules[9].module);
        let [violation] = &found.violations[..] else { panic!("{:?}", found.violations) };
        assert_eq!((violation.kind, violation.z_score), (Kind::FamilyZCap, Some(3.0)));
        assert_eq!((found.passed, found.decision), (true, Decision::Monitor));
        assert_eq!(found.metrics.multiple_testing_selection.families_selected, ["attn"]);
    }

    /// A candidate does not count where its family is not selected: the score 2.43 has the p-value 0.015, above 0.05 / 4.
    #[test]
    fn a_score_that_chance_explains_does_not_count() {
        let mut modules = attention(1.0);
        modules[7].spectral_norm = 0.0;
        modules[8].spectral_norm = 0.0;
        modules[9].spectral_norm = 2.6;
        let found = judge(&modules, &modules, &policy(2.0));
        assert_eq!(found.metrics.candidate_budgeted_violations, 1);
        assert!(found.violations.is_empty());
        assert_eq!(found.decision, Decision::Allow);
        assert_eq!(found.metrics.stability_score, 0.9);
    }

    #[test]
    fn equal_norms_have_the_score_of_their_change() {
        // Three equal doubles whose sum is rounded.
        let before: Vec<_> = (0..3).map(|i| module(&format!("{i}.q_proj"), 0.1)).collect();
        assert_eq!(judge(&before, &before, &policy(3.0)).modules[0].z, 0.0);
        let mut after = before.clone();
        after[1].spectral_norm = 0.125;
        after[2].spectral_norm = 0.109;
        let scores: Vec<f64> =
            judge(&before, &after, &policy(3.0)).modules.iter().map(|module| module.z).collect();
        // A change of 25 % is 2.5 deadbands, one of 9 % none.
        assert_eq!((scores[0], scores[2]), (0.0, 0.0));
        assert!((scores[1] - 2.5).abs() < 1e-6, "{scores:?}");
    }

    #[test]
    fn more_violations_than_max_caps_and_fatal_ones_fail() {
        let modules = attention(11.0);
        let none = UpstreamSpectralPolicy { max_caps: 0, ..policy(2.9) };
        let found = judge(&modules, &modules, &none);
        assert!(found.metrics.caps_exceeded && !found.passed);
        let limited = UpstreamSpectralPolicy { max_spectral_norm: Some(10.0), ..policy(9.0) };
        let found = judge(&modules, &modules, &limited);
        assert_eq!((found.passed, found.decision), (false, Decision::Block));
        assert_eq!(found.violations[0].kind, Kind::MaxSpectralNorm);
    }

    #[test]
    fn degenerate_matrices_are_seen_against_a_reference() {
        let before = attention(1.0);
        let mut after = before.clone();
        after[0].frobenius_norm = 1.3;
        after[1].frobenius_norm = 0.9;
        after[2].weakest = 0.1;
        after[3].weakest = 0.04;
        let found = judge(&before, &after, &policy(9.0));
        let kinds: Vec<_> = found.violations.iter().map(|found| (found.kind, found.severity)).collect();
        use Kind::{DegeneracyNormCollapse as Collapse, DegeneracyStableRankDrop as Drop};
        use Severity::{Budgeted, Fatal};
        assert_eq!(kinds, [(Drop, Fatal), (Collapse, Fatal), (Drop, Budgeted), (Collapse, Budgeted)]);
        assert_eq!(found.metrics.multiple_testing_selection.default_selected_without_pvalue, 2);
    }
}
