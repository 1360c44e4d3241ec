//! What each module of the subject adds to the hidden state against that of the same module of the baseline.

use super::super::contract::Contract;
use super::super::family::family;
use super::super::{Decision, Evaluation, Sides, StatisticsDigests, object};
use crate::format::evaluation_report::RmtPolicy;
use crate::format::statistics::ModuleActivations;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The `rmt` block of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Always true.
    pub evaluated: bool,
    /// As `stable`.
    pub passed: bool,
    /// Whether no module is out of its band.
    pub stable: bool,
    /// What follows from the outcome.
    pub decision: Decision,
    /// `compare`.
    pub mode: String,
    /// `stable` or `unstable`.
    pub status: String,
    /// Modules that both sides have.
    pub modules_checked: u64,
    /// Ids of the windows that were measured.
    pub windows: Vec<u64>,
    /// Edge of the module where it differs most from the baseline's; the larger divided by the smaller.
    pub max_edge_ratio: Option<f64>,
    /// How far an edge may be from the baseline's, in both directions.
    pub epsilon_default: f64,
    /// The module of each family whose edge differs most from the baseline's.
    pub families: BTreeMap<String, Edge>,
    /// The modules that are out of their band.
    pub epsilon_violations: Vec<Edge>,
    /// The statistics from which these numbers follow.
    pub statistics_sha256: StatisticsDigests,
    /// How the numbers were measured.
    pub measurement_contract: Map<String, Value>,
    /// First digits of its digest.
    pub measurement_contract_hash: String,
    /// Always true: both sides were measured in one way.
    pub measurement_contract_match: bool,
    /// The limits.
    pub policy: RmtPolicy,
}

/// The edge of a module on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// Name of the module.
    pub module: String,
    /// Its family.
    pub family: String,
    /// The baseline's edge; none if it lacks the module.
    pub edge_base: Option<f64>,
    /// The subject's edge; none if it lacks the module.
    pub edge_cur: Option<f64>,
    /// `edge_cur` divided by `edge_base`, less 1.
    pub delta: Option<f64>,
    /// Largest absolute change, relative to the smaller edge.
    pub epsilon: f64,
}

pub(super) fn evaluate(sides: &Sides<'_>) -> Option<Evaluation> {
    let [baseline, subject] = sides.statistics?;
    let policy = sides.limits.rmt(RmtPolicy::of(sides.tier));
    let edges = edges(&baseline.activations.modules, &subject.activations.modules, policy.epsilon_default);
    let violations: Vec<Edge> = edges.iter().filter(|edge| !edge.is_stable()).cloned().collect();
    let stable = violations.is_empty();
    let decision = Decision::of(stable, true);
    let block = Block {
        evaluated: true,
        passed: stable,
        stable,
        decision,
        mode: policy.mode.clone(),
        status: if stable { "stable" } else { "unstable" }.to_owned(),
        modules_checked: edges.iter().filter(|edge| edge.delta.is_some()).count() as u64,
        windows: subject.activations.windows.clone(),
        max_edge_ratio: edges.iter().filter_map(Edge::ratio).reduce(f64::max),
        epsilon_default: policy.epsilon_default,
        families: worst_of_families(&edges),
        epsilon_violations: violations,
        statistics_sha256: StatisticsDigests::of([&baseline.activations, &subject.activations]),
        measurement_contract: Contract::Rmt.content(),
        measurement_contract_hash: Contract::Rmt.hash(),
        measurement_contract_match: true,
        policy,
    };
    Some(Evaluation { block: object(&block), passed: stable, entry: sides.entry("rmt", stable, decision) })
}

/// The modules of both sides, by name.
fn edges(baseline: &[ModuleActivations], subject: &[ModuleActivations], epsilon: f64) -> Vec<Edge> {
    let mut both: BTreeMap<&str, [Option<f64>; 2]> = BTreeMap::new();
    for (side, modules) in [baseline, subject].into_iter().enumerate() {
        for module in modules {
            both.entry(&module.module).or_default()[side] = Some(module.edge);
        }
    }
    let edge = |(module, [edge_base, edge_cur]): (&str, [Option<f64>; 2])| Edge {
        module: module.to_owned(),
        family: family(module).to_owned(),
        edge_base,
        edge_cur,
        delta: edge_base
            .zip(edge_cur)
            .filter(|(before, _)| *before > 0.0)
            .map(|(before, after)| after / before - 1.0),
        epsilon,
    };
    both.into_iter().map(edge).collect()
}

fn worst_of_families(edges: &[Edge]) -> BTreeMap<String, Edge> {
    let mut worst: BTreeMap<String, Edge> = BTreeMap::new();
    for edge in edges {
        let known = worst.entry(edge.family.clone()).or_insert_with(|| edge.clone());
        if edge.ratio() > known.ratio() {
            *known = edge.clone();
        }
    }
    worst
}

impl Edge {
    /// The larger edge divided by the smaller; none where one is 0 or missing.
    fn ratio(&self) -> Option<f64> {
        let (before, after) = self.edge_base.zip(self.edge_cur)?;
        (before > 0.0 && after > 0.0).then(|| (before / after).max(after / before))
    }

    /// Whether both edges are alike. A module that only one side has is a matter of the other guards.
    fn is_stable(&self) -> bool {
        match (self.ratio(), self.edge_base.zip(self.edge_cur)) {
            (Some(ratio), _) => ratio <= 1.0 + self.epsilon,
            (None, Some((before, after))) => before == after,
            (None, None) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(edges: &[(&str, f64)]) -> Vec<ModuleActivations> {
        let module = |(name, edge): &(&str, f64)| ModuleActivations {
            module: (*name).to_owned(),
            edge: *edge,
            mean_square: 1.0,
        };
        edges.iter().map(module).collect()
    }

    #[test]
    fn edges_are_limited_in_both_directions() {
        for (after, stable) in
            [(2.0, true), (2.4, true), (2.6, false), (1.65, true), (1.5, false), (0.0, false)]
        {
            let found = edges(&modules(&[("m", 2.0)]), &modules(&[("m", after)]), 0.25);
            assert_eq!(found[0].is_stable(), stable, "{after}");
        }
        let zero = modules(&[("m", 0.0)]);
        assert!(edges(&zero, &zero, 0.25)[0].is_stable());
        assert!(!edges(&zero, &modules(&[("m", 1.0)]), 0.25)[0].is_stable());
    }

    #[test]
    fn worst_module_stands_for_its_family() {
        let before = modules(&[("h.0.attn.c_proj", 1.0), ("h.1.attn.c_proj", 1.0), ("h.0.mlp.c_proj", 1.0)]);
        let after = modules(&[("h.0.attn.c_proj", 0.9), ("h.1.attn.c_proj", 1.05)]);
        let families = worst_of_families(&edges(&before, &after, 0.25));
        assert_eq!(families["attn"].module, "h.0.attn.c_proj");
        assert_eq!(families["ffn"].edge_cur, None);
        assert!(families["ffn"].is_stable());
    }
}
