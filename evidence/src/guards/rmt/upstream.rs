//! The RMT guard as InvarLock 0.12 judges: the largest edge of the modules of each family against that before an edit.
//!
//! Where InvarLock compares two checkpoints, it measures the subject both times. [`judge`] gets both, so a caller passes the same modules
//! twice.

use super::super::contract::Contract;
use super::super::family::first_match;
use super::super::{Decision, Evaluation, Sides, StatisticsDigests, object};
use crate::format::evaluation_report::UpstreamRmtPolicy;
use crate::format::statistics::ModuleActivations;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Parts of the names of the linear layers that InvarLock measures, in lower case.
const LINEAR: [&str; 11] = [
    "attn",
    "attention",
    "mlp",
    "ffn",
    "densereludense",
    "router",
    "expert",
    "moe",
    "gate",
    "gating",
    "switch",
];

/// Names of families with parts of names, in the order in which they are tried.
const FAMILIES: [(&str, &[&str]); 3] = [
    ("attn", &["attn", "attention"]),
    (
        "ffn",
        &[
            "router",
            "routing",
            "gate",
            "gating",
            "dispatch",
            "switch",
            "expert",
            "moe",
            "mlp",
            "ffn",
            "c_fc",
            "feed_forward",
            "densereludense",
        ],
    ),
    ("embed", &["embed", "wte", "wpe"]),
];

/// The families that every report has. One without modules has the edge 0.
const ALWAYS: [&str; 4] = ["attn", "ffn", "embed", "other"];

/// Whether InvarLock measures a linear layer. It measures every embedding and every layer normalisation.
pub fn names_linear(module: &str) -> bool {
    let name = module.to_lowercase();
    LINEAR.iter().any(|part| name.contains(part))
}

/// The family of a module.
fn family_of(module: &str) -> &'static str {
    first_match(&FAMILIES, module).unwrap_or("other")
}

/// What the guard says of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Whether no family has a violation.
    pub stable: bool,
    /// What follows.
    pub decision: Decision,
    /// The numbers, as `metrics` of InvarLock's run report.
    pub metrics: Metrics,
}

/// The numbers of the guard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Always true.
    pub prepared: bool,
    /// Whether no family has a violation.
    pub stable: bool,
    /// The largest edge of each family, of the reference.
    pub edge_risk_by_family_base: BTreeMap<String, f64>,
    /// The same of the checkpoint.
    pub edge_risk_by_family: BTreeMap<String, f64>,
    /// The limits.
    pub epsilon_by_family: BTreeMap<String, f64>,
    /// Families above their limit.
    pub epsilon_violations: Vec<Violation>,
    /// As in the policy.
    pub measurement_contract: Map<String, Value>,
}

/// A family whose edge grew too much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// Name of the family.
    pub family: String,
    /// Edge of the reference.
    pub edge_base: f64,
    /// Edge of the checkpoint.
    pub edge_cur: f64,
    /// `edge_cur` divided by `edge_base`, less 1.
    pub delta: f64,
    /// Largest edge.
    pub allowed: f64,
    /// How much the edge may grow, relative to that of the reference.
    pub epsilon: f64,
}

/// Judges the modules of a checkpoint by those of a reference.
pub fn judge(
    reference: &[ModuleActivations],
    modules: &[ModuleActivations],
    policy: &UpstreamRmtPolicy,
) -> Judgement {
    let (before, after) = (families(reference), families(modules));
    let violation = |(family, edge_base): (&String, &f64)| {
        let (edge_base, edge_cur) = (*edge_base, after.get(family).copied().unwrap_or_default());
        let epsilon = policy.epsilon(family);
        let allowed = (1.0 + epsilon) * edge_base;
        (edge_base > 0.0 && edge_cur > allowed).then(|| Violation {
            family: family.clone(),
            edge_base,
            edge_cur,
            delta: edge_cur / edge_base - 1.0,
            allowed,
            epsilon,
        })
    };
    let violations: Vec<Violation> = before.iter().filter_map(violation).collect();
    let stable = violations.is_empty();
    let metrics = Metrics {
        prepared: true,
        stable,
        edge_risk_by_family_base: before,
        edge_risk_by_family: after,
        epsilon_by_family: policy.epsilon_by_family.clone(),
        epsilon_violations: violations,
        measurement_contract: policy.measurement_contract.clone(),
    };
    Judgement { stable, decision: Decision::of(stable, true), metrics }
}

/// The largest edge of each family.
fn families(modules: &[ModuleActivations]) -> BTreeMap<String, f64> {
    let mut families: BTreeMap<String, f64> = ALWAYS.map(|family| (family.to_owned(), 0.0)).into();
    for module in modules {
        let edge = families.entry(family_of(&module.module).to_owned()).or_default();
        *edge = edge.max(module.edge);
    }
    families
}

impl UpstreamRmtPolicy {
    fn epsilon(&self, family: &str) -> f64 {
        self.epsilon_by_family.get(family).copied().unwrap_or(self.epsilon_default)
    }
}

/// The `rmt` block of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Always true.
    pub evaluated: bool,
    /// As `stable`.
    pub passed: bool,
    /// Whether no family has a violation.
    pub stable: bool,
    /// What follows from the outcome.
    pub decision: Decision,
    /// `upstream`.
    pub mode: String,
    /// `stable` or `unstable`.
    pub status: String,
    /// Modules that were measured.
    pub modules_checked: u64,
    /// Ids of the windows that were measured.
    pub windows: Vec<u64>,
    /// The largest `ratio` of a family.
    pub max_edge_ratio: f64,
    /// The largest `delta` of a family.
    pub max_edge_delta: f64,
    /// The mean of `delta`.
    pub mean_edge_delta: f64,
    /// How much an edge may grow.
    pub epsilon_default: f64,
    /// The families with modules.
    pub families: BTreeMap<String, Family>,
    /// As [`Metrics::edge_risk_by_family_base`].
    pub edge_risk_by_family_base: BTreeMap<String, f64>,
    /// As [`Metrics::edge_risk_by_family`].
    pub edge_risk_by_family: BTreeMap<String, f64>,
    /// As [`Metrics::epsilon_by_family`].
    pub epsilon_by_family: BTreeMap<String, f64>,
    /// As [`Metrics::epsilon_violations`].
    pub epsilon_violations: Vec<Violation>,
    /// What was measured: a list of the activations, which the default mode compares, and of the outputs, from which these numbers follow.
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
    pub policy: UpstreamRmtPolicy,
}

/// A family of modules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// Edge of the reference.
    pub edge_base: f64,
    /// Edge of the subject.
    pub edge_cur: f64,
    /// How much the edge may grow, relative to that of the reference.
    pub epsilon: f64,
    /// Largest edge.
    pub allowed: f64,
    /// `edge_cur` divided by `edge_base`.
    pub ratio: f64,
    /// `ratio` less 1.
    pub delta: f64,
}

pub(super) fn evaluate(sides: &Sides<'_>) -> Option<Evaluation> {
    let measured = sides.statistics?;
    let [Some(baseline), Some(subject)] = measured.map(|side| side.upstream.as_ref()) else { return None };
    let [before, after] = measured.map(|side| &side.activations);
    let policy = UpstreamRmtPolicy::new();
    let modules = &subject.outputs.modules;
    let Judgement { stable, decision, metrics } = judge(modules, modules, &policy);
    let with_modules = metrics.edge_risk_by_family_base.iter().filter(|(_, edge)| **edge > 0.0);
    let families: BTreeMap<String, Family> = with_modules
        .map(|(family, edge_base)| {
            let edge_cur = metrics.edge_risk_by_family.get(family).copied().unwrap_or_default();
            let (epsilon, ratio) = (policy.epsilon(family), edge_cur / edge_base);
            let allowed = (1.0 + epsilon) * edge_base;
            (
                family.clone(),
                Family { edge_base: *edge_base, edge_cur, epsilon, allowed, ratio, delta: ratio - 1.0 },
            )
        })
        .collect();
    let deltas: Vec<f64> = families.values().map(|family| family.delta).collect();
    let block = Block {
        evaluated: true,
        passed: stable,
        stable,
        decision,
        mode: policy.mode.clone(),
        status: if stable { "stable" } else { "unstable" }.to_owned(),
        modules_checked: modules.len() as u64,
        windows: subject.outputs.windows.clone(),
        max_edge_ratio: families.values().map(|family| family.ratio).fold(0.0, f64::max),
        max_edge_delta: deltas.iter().copied().reduce(f64::max).unwrap_or_default(),
        mean_edge_delta: deltas.iter().sum::<f64>() / deltas.len().max(1) as f64,
        epsilon_default: policy.epsilon_default,
        families,
        edge_risk_by_family_base: metrics.edge_risk_by_family_base,
        edge_risk_by_family: metrics.edge_risk_by_family,
        epsilon_by_family: metrics.epsilon_by_family,
        epsilon_violations: metrics.epsilon_violations,
        statistics_sha256: StatisticsDigests::of([&(before, &baseline.outputs), &(after, &subject.outputs)]),
        measurement_contract: Contract::UpstreamRmt.content(),
        measurement_contract_hash: Contract::UpstreamRmt.hash(),
        baseline_measurement_contract_hash: Contract::UpstreamRmt.hash(),
        measurement_contract_match: true,
        policy,
    };
    Some(Evaluation { block: object(&block), passed: stable, entry: sides.entry("rmt", stable, decision) })
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
    fn the_largest_edge_of_a_family_may_grow_by_epsilon() {
        let before = modules(&[("h.0.attn.c_proj", 2.0), ("h.1.attn.c_proj", 1.0), ("ln_f", 3.0)]);
        let policy = UpstreamRmtPolicy::new();
        for (edge, stable) in [(2.0, true), (2.019, true), (2.021, false), (0.1, true)] {
            let after = modules(&[("h.0.attn.c_proj", 0.0), ("h.1.attn.c_proj", edge), ("ln_f", 3.0)]);
            let found = judge(&before, &after, &policy);
            assert_eq!(found.stable, stable, "{edge}");
            assert_eq!(found.metrics.epsilon_violations.len(), usize::from(!stable));
        }
    }

    #[test]
    fn layers_and_families_are_those_of_upstream() {
        for (module, named, family) in [
            ("transformer.h.0.attn.c_attn", true, "attn"),
            ("model.layers.0.mlp.gate_proj", true, "ffn"),
            ("bert.encoder.layer.0.attention.output.LayerNorm", true, "attn"),
            ("bert.encoder.layer.0.intermediate.dense", false, "other"),
            ("model.layers.0.mlp.gate", true, "ffn"),
            ("model.decoder.layers.0.fc1", false, "other"),
            ("transformer.wpe", false, "embed"),
            ("transformer.h.0.ln_1", false, "other"),
            ("lm_head", false, "other"),
        ] {
            assert_eq!((names_linear(module), family_of(module)), (named, family), "{module}");
        }
    }
}
