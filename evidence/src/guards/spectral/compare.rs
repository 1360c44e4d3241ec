//! The weights of each module of the subject against those of the same module of the baseline.

use super::super::contract::Contract;
use super::super::family::family;
use super::super::{Decision, Evaluation, Sides, StatisticsDigests, object};
use crate::format::evaluation_report::SpectralPolicy;
use crate::format::statistics::WeightStatistics;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The `spectral` block of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Always true.
    pub evaluated: bool,
    /// Whether no violation is fatal and not too many modules have one.
    pub passed: bool,
    /// What follows from the outcome.
    pub decision: Decision,
    /// `compare`.
    pub mode: String,
    /// Modules with violations that are not fatal.
    pub caps_applied: u64,
    /// How many of them the tier allows.
    pub max_caps: u64,
    /// Whether there are more.
    pub caps_exceeded: bool,
    /// Numbers over all modules.
    pub summary: Summary,
    /// The same by family of modules.
    pub families: BTreeMap<String, Family>,
    /// What differs too much, the modules in the order of the baseline.
    pub violations: Vec<Violation>,
    /// The statistics from which these numbers follow.
    pub statistics_sha256: StatisticsDigests,
    /// How the numbers were measured.
    pub measurement_contract: Map<String, Value>,
    /// First digits of its digest.
    pub measurement_contract_hash: String,
    /// Always true: both sides were measured in one way.
    pub measurement_contract_match: bool,
    /// The limits.
    pub policy: SpectralPolicy,
}

/// Numbers over all modules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// `stable` or `capped`.
    pub status: String,
    /// Modules that both sides have.
    pub modules_checked: u64,
    /// Violations that are fatal.
    pub fatal_violations: u64,
    /// Largest spectral norm of the subject.
    pub max_spectral_norm: f64,
    /// Mean of the spectral norms of the subject.
    pub mean_spectral_norm: f64,
    /// Spectral norm against the baseline's of the module where they differ most; the larger divided by the smaller.
    pub max_sigma_ratio: Option<f64>,
    /// Smallest correlation of a module with the baseline's.
    pub min_correlation: Option<f64>,
    /// As in the block.
    pub max_caps: u64,
    /// As in the block.
    pub caps_exceeded: bool,
}

/// Numbers of a family of modules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// Modules that both sides have.
    pub modules: u64,
    /// As [`Summary::max_sigma_ratio`].
    pub max_sigma_ratio: Option<f64>,
    /// As [`Summary::min_correlation`].
    pub min_correlation: Option<f64>,
}

/// What differs too much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// Name of the module.
    pub module: String,
    /// Its family.
    pub family: String,
    /// What differs.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Whether it is fatal.
    pub severity: Severity,
    /// The difference in words.
    pub message: String,
    /// The baseline's value, if it has one.
    pub baseline: Option<f64>,
    /// The subject's value, if it has one.
    pub subject: Option<f64>,
}

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Only one side has the module.
    Missing,
    /// Rows or columns.
    Shape,
    /// The largest singular value.
    SpectralNorm,
    /// The squared Frobenius norm divided by the squared spectral norm.
    StableRank,
    /// The shortest row or column against the median.
    Weakest,
    /// Each element with the baseline's.
    Correlation,
}

/// Severity of a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The tier allows some modules with such a violation.
    Budgeted,
    /// The subject fails.
    Fatal,
}

/// Shortest rows of the baseline below this share of the median are not compared: a vocabulary has rows that were never trained.
const WEAKEST_FLOOR: f64 = 0.05;

pub(super) fn evaluate(sides: &Sides<'_>) -> Option<Evaluation> {
    let [baseline, subject] = sides.statistics?;
    let policy = sides.limits.spectral(SpectralPolicy::of(sides.tier));
    let compared = Compared::new(&baseline.weights, &subject.weights, &policy);
    let (passed, decision) = compared.outcome(&policy);
    let digests = StatisticsDigests::of([&baseline.weights, &subject.weights]);
    let block = compared.block(&subject.weights, digests, policy, passed, decision);
    Some(Evaluation { block: object(&block), passed, entry: sides.entry("spectral", passed, decision) })
}

/// The comparison of all modules.
#[derive(Default)]
struct Compared {
    violations: Vec<Violation>,
    families: BTreeMap<String, Family>,
}

impl Compared {
    fn new(baseline: &[WeightStatistics], subject: &[WeightStatistics], policy: &SpectralPolicy) -> Self {
        let named = |modules: &'_ [WeightStatistics]| -> BTreeMap<String, WeightStatistics> {
            modules.iter().map(|module| (module.module.clone(), module.clone())).collect()
        };
        let (before, after) = (named(baseline), named(subject));
        let mut compared = Self::default();
        for module in baseline {
            match after.get(&module.module) {
                Some(same) => compared.module(module, same, policy),
                None => compared.missing(module, "the subject lacks this module of the baseline"),
            }
        }
        for module in subject.iter().filter(|module| !before.contains_key(&module.module)) {
            compared.missing(module, "the baseline lacks this module of the subject");
        }
        compared
    }

    fn add(
        &mut self,
        module: &str,
        kind: Kind,
        severity: Severity,
        message: String,
        values: [Option<f64>; 2],
    ) {
        let [baseline, subject] = values;
        let (module, family) = (module.to_owned(), family(module).to_owned());
        self.violations.push(Violation { module, family, kind, severity, message, baseline, subject });
    }

    fn missing(&mut self, module: &WeightStatistics, message: &str) {
        self.add(&module.module, Kind::Missing, Severity::Budgeted, message.to_owned(), [None, None]);
    }

    /// Compares one module.
    fn module(&mut self, before: &WeightStatistics, after: &WeightStatistics, policy: &SpectralPolicy) {
        let name = &before.module;
        let (ratio, correlation) =
            (deviation(before.spectral_norm, after.spectral_norm), correlation(before, after));
        let family = self.families.entry(family(name).to_owned()).or_default();
        family.modules += 1;
        family.max_sigma_ratio = larger(family.max_sigma_ratio, ratio);
        family.min_correlation = smaller(family.min_correlation, correlation);

        if before.shape != after.shape {
            let ([rows, columns], [rows_now, columns_now]) = (before.shape, after.shape);
            let message =
                format!("{rows} × {columns} in the baseline, {rows_now} × {columns_now} in the subject");
            self.add(name, Kind::Shape, Severity::Budgeted, message, [None, None]);
        }
        self.norm(before, after, ratio, policy);
        let ranks = [stable_rank(before), stable_rank(after)];
        if let [Some(rank), Some(now)] = ranks
            && let Some(severity) =
                below(now / rank, policy.stable_rank_ratio_min, policy.stable_rank_ratio_fatal)
        {
            let message = format!("the stable rank fell from {rank:.3} to {now:.3}");
            self.add(name, Kind::StableRank, severity, message, ranks);
        }
        let (weakest, now) = (before.weakest, after.weakest);
        if weakest >= WEAKEST_FLOOR && now < policy.weakest_ratio_min * weakest {
            let message =
                format!("the shortest row or column fell from {weakest:.3} to {now:.3} of the median");
            self.add(name, Kind::Weakest, Severity::Budgeted, message, [Some(weakest), Some(now)]);
        }
        if let Some(found) = correlation
            && let Some(severity) = below(found, policy.correlation_min, policy.correlation_fatal)
        {
            let message = format!("the correlation with the baseline's weights is {found:.3}");
            self.add(name, Kind::Correlation, severity, message, [None, Some(found)]);
        }
    }

    fn norm(
        &mut self,
        before: &WeightStatistics,
        after: &WeightStatistics,
        ratio: Option<f64>,
        policy: &SpectralPolicy,
    ) {
        let (was, now) = (before.spectral_norm, after.spectral_norm);
        let severity = match ratio {
            Some(ratio) if ratio <= policy.norm_ratio_max => return,
            Some(ratio) if ratio <= policy.norm_ratio_fatal => Severity::Budgeted,
            None if was == now => return,
            _ => Severity::Fatal,
        };
        let message =
            format!("the largest singular value is {was:.4} in the baseline and {now:.4} in the subject");
        self.add(&before.module, Kind::SpectralNorm, severity, message, [Some(was), Some(now)]);
    }

    /// Modules with violations that are not fatal.
    fn caps(&self) -> u64 {
        let budgeted = self.violations.iter().filter(|violation| violation.severity == Severity::Budgeted);
        budgeted.map(|violation| &violation.module).collect::<std::collections::BTreeSet<_>>().len() as u64
    }

    fn fatal(&self) -> u64 {
        self.violations.iter().filter(|violation| violation.severity == Severity::Fatal).count() as u64
    }

    fn outcome(&self, policy: &SpectralPolicy) -> (bool, Decision) {
        let passed = self.fatal() == 0 && self.caps() <= policy.max_caps;
        (passed, Decision::of(passed, self.violations.is_empty()))
    }

    fn block(
        self,
        subject: &[WeightStatistics],
        statistics_sha256: StatisticsDigests,
        policy: SpectralPolicy,
        passed: bool,
        decision: Decision,
    ) -> Block {
        let norms = || subject.iter().map(|module| module.spectral_norm);
        let (caps, caps_exceeded) = (self.caps(), self.caps() > policy.max_caps);
        let summary = Summary {
            status: if self.violations.is_empty() { "stable" } else { "capped" }.to_owned(),
            modules_checked: self.families.values().map(|family| family.modules).sum(),
            fatal_violations: self.fatal(),
            max_spectral_norm: norms().fold(0.0, f64::max),
            mean_spectral_norm: norms().sum::<f64>() / subject.len().max(1) as f64,
            max_sigma_ratio: self.families.values().map(|family| family.max_sigma_ratio).fold(None, larger),
            min_correlation: self.families.values().map(|family| family.min_correlation).fold(None, smaller),
            max_caps: policy.max_caps,
            caps_exceeded,
        };
        Block {
            evaluated: true,
            passed,
            decision,
            mode: policy.mode.clone(),
            caps_applied: caps,
            max_caps: policy.max_caps,
            caps_exceeded,
            summary,
            families: self.families,
            violations: self.violations,
            statistics_sha256,
            measurement_contract: Contract::Spectral.content(),
            measurement_contract_hash: Contract::Spectral.hash(),
            measurement_contract_match: true,
            policy,
        }
    }
}

fn larger(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::max)
}

fn smaller(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::min)
}

/// Severity of a value below a limit.
fn below(value: f64, least: f64, fatal: f64) -> Option<Severity> {
    match value {
        value if value < fatal => Some(Severity::Fatal),
        value if value < least => Some(Severity::Budgeted),
        _ => None,
    }
}

/// The larger value divided by the smaller; none if one of them is 0.
fn deviation(before: f64, after: f64) -> Option<f64> {
    (before > 0.0 && after > 0.0).then(|| (before / after).max(after / before))
}

/// None for a matrix of zeros.
fn stable_rank(module: &WeightStatistics) -> Option<f64> {
    (module.spectral_norm > 0.0).then(|| (module.frobenius_norm / module.spectral_norm).powi(2))
}

/// Correlation of the elements: 1 − d²/2, where d is the distance of both sketches. None if the shapes differ, or for zeros.
fn correlation(before: &WeightStatistics, after: &WeightStatistics) -> Option<f64> {
    let comparable = before.shape == after.shape
        && before.sketch.len() == after.sketch.len()
        && before.frobenius_norm > 0.0
        && after.frobenius_norm > 0.0;
    let pairs = before.sketch.iter().zip(&after.sketch);
    comparable.then(|| 1.0 - pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Tier;

    fn module(name: &str) -> WeightStatistics {
        WeightStatistics {
            module: name.to_owned(),
            shape: [4, 8],
            spectral_norm: 2.0,
            frobenius_norm: 3.0,
            weakest: 0.5,
            sketch: vec![0.125; 64],
        }
    }

    fn of(before: &[WeightStatistics], after: &[WeightStatistics]) -> (Compared, bool) {
        let policy = SpectralPolicy::of(Tier::Balanced);
        let compared = Compared::new(before, after, &policy);
        let passed = compared.outcome(&policy).0;
        (compared, passed)
    }

    /// The violations of a subject with one changed module.
    fn changed(change: impl FnOnce(&mut WeightStatistics)) -> Vec<(Kind, Severity)> {
        let mut after = module("m");
        change(&mut after);
        let (compared, _) = of(&[module("m")], &[after]);
        compared.violations.iter().map(|found| (found.kind, found.severity)).collect()
    }

    #[test]
    fn equal_modules_pass() {
        let (compared, passed) = of(&[module("m")], &[module("m")]);
        assert!(passed && compared.violations.is_empty());
        assert_eq!(compared.families["other"].min_correlation, Some(1.0));
    }

    #[test]
    fn norms_are_limited_in_both_directions() {
        use Severity::{Budgeted, Fatal};
        for (norm, expected) in [
            (2.9, None),
            (3.1, Some(Budgeted)),
            (4.1, Some(Fatal)),
            (1.3, Some(Budgeted)),
            (0.9, Some(Fatal)),
            (0.0, Some(Fatal)),
        ] {
            let found = changed(|module| {
                module.spectral_norm = norm;
                module.frobenius_norm = 1.5 * norm;
            });
            let expected: Vec<_> =
                expected.into_iter().map(|severity| (Kind::SpectralNorm, severity)).collect();
            assert_eq!(found, expected, "{norm}");
        }
    }

    #[test]
    fn each_statistic_is_limited() {
        use Severity::{Budgeted, Fatal};
        assert_eq!(changed(|m| m.frobenius_norm = 2.0), [(Kind::StableRank, Budgeted)]);
        assert_eq!(changed(|m| m.frobenius_norm = 1.4), [(Kind::StableRank, Fatal)]);
        assert_eq!(changed(|m| m.weakest = 0.1), [(Kind::Weakest, Budgeted)]);
        assert_eq!(changed(|m| m.sketch[0] = 0.95), [(Kind::Correlation, Budgeted)]);
        assert_eq!(changed(|m| m.sketch[0] = 1.25), [(Kind::Correlation, Fatal)]);
        assert_eq!(changed(|m| m.shape = [5, 8]), [(Kind::Shape, Budgeted)]);
    }

    #[test]
    fn only_some_modules_may_have_violations() {
        let names: Vec<String> = (0..8).map(|i| format!("layers.{i}")).collect();
        let before: Vec<_> = names.iter().map(|name| module(name)).collect();
        for (count, expected) in [(5, true), (6, false)] {
            let mut after = before.clone();
            after[..count].iter_mut().for_each(|module| module.weakest = 0.0);
            assert_eq!(of(&before, &after).1, expected, "{count}");
        }
        let (compared, passed) = of(&before, &before[1..]);
        assert!(passed);
        assert_eq!(compared.violations[0].kind, Kind::Missing);
    }
}
