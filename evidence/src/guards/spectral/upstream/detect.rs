//! Scores of modules, and modules that exceed a limit.

use super::super::compare::Severity;
use super::family::{family_of, is_checked};
use super::{Kind, ModuleScore, Violation};
use crate::format::evaluation_report::{Scope, UpstreamSpectralPolicy};
use crate::format::statistics::WeightStatistics;
use crate::guards::contract::degeneracy::{NORM_COLLAPSE, Ratios, STABLE_RANK};
use crate::numerics::stats::{mean, sum_by};
use std::collections::{BTreeMap, HashMap};

/// The limit of a family without its own, where the family `other` has none either.
const DEFAULT_KAPPA: f64 = 3.0;

/// Smallest norm, as InvarLock limits it.
const SMALLEST: f64 = 1e-12;

/// The modules that the guard checks.
pub(super) struct Modules<'a> {
    list: Vec<Module<'a>>,
    places: HashMap<&'a str, usize>,
}

struct Module<'a> {
    statistics: &'a WeightStatistics,
    family: &'static str,
    sigma: f64,
}

impl<'a> Modules<'a> {
    pub(super) fn checked(modules: &'a [WeightStatistics], scope: Scope) -> Self {
        let checked = modules.iter().filter(|module| is_checked(module, scope));
        let list: Vec<Module<'a>> = checked
            .map(|statistics| Module {
                statistics,
                family: family_of(&statistics.module),
                // InvarLock's are in single precision, so equal norms have the standard deviation 0.
                sigma: f64::from(statistics.spectral_norm as f32).max(SMALLEST),
            })
            .collect();
        let places = list.iter().enumerate().map(|(i, module)| (&*module.statistics.module, i)).collect();
        Self { list, places }
    }

    fn get(&self, name: &str) -> Option<&Module<'a>> {
        self.places.get(name).map(|place| &self.list[*place])
    }

    /// The scores of the modules, among the families of a reference.
    pub(super) fn scores(
        &self,
        reference: &Modules<'_>,
        families: &Families,
        deadband: f64,
    ) -> Vec<ModuleScore> {
        let score = |module: &Module<'_>| {
            let family = families.0.get(module.family).copied().unwrap_or_default();
            let name = &module.statistics.module;
            let before = reference.get(name).map_or(family.mean, |before| before.sigma);
            let z = family.score(module.sigma, before, deadband);
            ModuleScore { module: name.clone(), family: module.family, sigma: module.sigma, z }
        };
        self.list.iter().map(score).collect()
    }
}

/// Mean and standard deviation of the norms of each family.
pub(super) struct Families(BTreeMap<&'static str, Family>);

#[derive(Clone, Copy, Default)]
struct Family {
    mean: f64,
    deviation: f64,
}

impl Families {
    pub(super) fn of(modules: &Modules<'_>) -> Self {
        let mut norms: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for module in &modules.list {
            norms.entry(module.family).or_default().push(module.sigma);
        }
        let family = |norms: &[f64]| {
            let mean = mean(norms);
            let variance = sum_by(norms.len(), &|i| (norms[i] - mean).powi(2)) / norms.len() as f64;
            Family { mean, deviation: variance.sqrt() }
        };
        Self(norms.into_iter().map(|(name, norms)| (name, family(&norms))).collect())
    }
}

impl Family {
    /// The score of a norm. In a family of equal norms, it is the relative change in units of the deadband.
    fn score(self, sigma: f64, before: f64, deadband: f64) -> f64 {
        if self.deviation > 0.0 {
            return (sigma - self.mean) / self.deviation;
        }
        let change = sigma / if before > 0.0 { before } else { 1.0 } - 1.0;
        match change.abs() <= deadband {
            true => 0.0,
            false => change / if deadband > 0.0 { deadband } else { 1.0 },
        }
    }
}

/// Everything that exceeds a limit, the modules in the order of their list.
pub(super) fn violations(
    before: &Modules<'_>,
    after: &Modules<'_>,
    scores: &[ModuleScore],
    policy: &UpstreamSpectralPolicy,
) -> Vec<Violation> {
    let mut found = Vec::new();
    for (module, score) in after.list.iter().zip(scores) {
        let mut add = |kind, severity, z_score, value, limit, message| {
            let (module, family) = (score.module.clone(), score.family.to_owned());
            let p_value = None;
            let selected = severity == Severity::Fatal;
            found.push(Violation {
                kind,
                severity,
                module,
                family,
                z_score,
                value,
                limit,
                message,
                p_value,
                selected,
            });
        };
        let cap = |family| policy.family_caps.get(family).map(|cap| cap.kappa);
        let kappa = cap(score.family).or_else(|| cap("other")).unwrap_or(DEFAULT_KAPPA);
        let z = score.z;
        if z.abs() > kappa {
            let message =
                format!("the z-score among the family {} is {z:.2}, limit {kappa:.2}", score.family);
            add(Kind::FamilyZCap, Severity::Budgeted, Some(z), z.abs(), kappa, message);
        }
        if let Some(most) = policy.max_spectral_norm.filter(|most| score.sigma > *most) {
            let message = format!("the spectral norm is {:.3}, limit {most:.3}", score.sigma);
            add(Kind::MaxSpectralNorm, Severity::Fatal, None, score.sigma, most, message);
        }
        let Some(reference) = before.get(&score.module) else { continue };
        let mut degenerate = |kind, name: &str, [base, now]: [f64; 2], limits: Ratios| {
            if base > 0.0
                && let ratio = now / base.max(SMALLEST)
                && let Some(severity) = limits.severity(ratio)
            {
                let message = format!("{name} fell from {base:.3} to {now:.3}");
                add(kind, severity, None, ratio, limits.warn_ratio, message);
            }
        };
        let ranks = [reference, module].map(stable_rank);
        degenerate(Kind::DegeneracyStableRankDrop, "the stable rank", ranks, STABLE_RANK);
        let weakest = [reference, module].map(|module| module.statistics.weakest);
        let name = "the shortest row or column, divided by the median,";
        degenerate(Kind::DegeneracyNormCollapse, name, weakest, NORM_COLLAPSE);
    }
    found
}

fn stable_rank(module: &Module<'_>) -> f64 {
    module.statistics.frobenius_norm.powi(2) / (module.sigma * module.sigma).max(SMALLEST)
}
