//! Which candidates count as violations: those of the families that a test of several hypotheses rejects.

use super::Violation;
use crate::guards::spectral::multiple_testing::{Method, MultipleTesting};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The outcome of the test (`multiple_testing_selection`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// The method.
    pub method: Method,
    /// Level of the test.
    pub alpha: f64,
    /// Number of families by which the level is divided.
    pub m: u64,
    /// Families with candidates.
    pub families_tested: Vec<String>,
    /// Those of them whose candidates count.
    pub families_selected: Vec<String>,
    /// The smallest p-value of each.
    pub family_pvalues: BTreeMap<String, f64>,
    /// The largest absolute z-score of each.
    pub family_max_abs_z: BTreeMap<String, f64>,
    /// Candidates of each.
    pub family_violation_counts: BTreeMap<String, u64>,
    /// Candidates without a z-score, which always count.
    pub default_selected_without_pvalue: u64,
}

/// Probability that the absolute value of a normal variable is larger.
pub fn two_sided_p_value(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// Marks the candidates that count.
pub(super) fn select(candidates: &mut [Violation], testing: MultipleTesting) -> Selection {
    let mut pvalues = BTreeMap::new();
    let mut largest = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for candidate in candidates.iter() {
        let Some(z) = candidate.z_score else { continue };
        let (family, p) = (&candidate.family, two_sided_p_value(z));
        *counts.entry(family.clone()).or_insert(0) += 1;
        if pvalues.get(family).is_none_or(|known| p < *known) {
            pvalues.insert(family.clone(), p);
            largest.insert(family.clone(), z.abs());
        }
    }
    let selected = testing.rejected(&pvalues);
    for candidate in candidates.iter_mut() {
        candidate.p_value = candidate.z_score.map(two_sided_p_value);
        candidate.selected = candidate.z_score.is_none() || selected.contains(&candidate.family);
    }
    Selection {
        method: testing.method,
        alpha: testing.alpha,
        m: testing.m.max(pvalues.len() as u64).max(1),
        families_tested: pvalues.keys().cloned().collect(),
        families_selected: selected.into_iter().collect(),
        family_pvalues: pvalues,
        family_max_abs_z: largest,
        family_violation_counts: counts,
        default_selected_without_pvalue: candidates.iter().filter(|c| c.z_score.is_none()).count() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_are_two_sided() {
        // math.erfc(1.96 / math.sqrt(2)), CPython 3.12.
        assert!((two_sided_p_value(-1.96) - 0.049_995_790_296_440_87).abs() < 1e-15);
        assert_eq!(two_sided_p_value(0.0), 1.0);
    }
}
