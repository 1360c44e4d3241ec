//! The scale of what each module of the subject adds to the hidden state against that of the baseline. It is reported and decides nothing.

use super::super::{Decision, Evaluation, Sides, object};
use crate::format::evaluation_report::VariancePolicy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The `variance` block of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Block {
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
    /// Always `allow`.
    pub decision: Decision,
    /// `pass`.
    pub status: String,
    /// `compare`.
    pub mode: String,
    /// Modules that both sides have.
    pub modules_checked: u64,
    /// The factor that would give a module of the subject the root mean square of the baseline's, where it is not within the deadband of 1.
    pub proposed_scales: BTreeMap<String, f64>,
    /// The limits.
    pub policy: VariancePolicy,
}

pub(super) fn evaluate(sides: &Sides<'_>) -> Option<Evaluation> {
    let [baseline, subject] = sides.statistics?;
    let policy = VariancePolicy::of(sides.tier);
    let after: BTreeMap<&str, f64> = subject
        .activations
        .modules
        .iter()
        .map(|module| (module.module.as_str(), module.mean_square))
        .collect();
    let scale = |module: &crate::format::statistics::ModuleActivations| {
        let now = after.get(module.module.as_str()).filter(|now| **now > 0.0)?;
        Some((module.module.clone(), (module.mean_square / now).sqrt()))
    };
    let scales: BTreeMap<String, f64> = baseline.activations.modules.iter().filter_map(scale).collect();
    let block = Block {
        evaluated: true,
        supported: true,
        enabled: false,
        monitor_only: true,
        passed: true,
        decision: Decision::Allow,
        status: "pass".to_owned(),
        mode: policy.mode.clone(),
        modules_checked: scales.len() as u64,
        proposed_scales: scales
            .into_iter()
            .filter(|(_, scale)| (scale - 1.0).abs() >= policy.deadband)
            .collect(),
        policy,
    };
    Some(Evaluation {
        block: object(&block),
        passed: true,
        entry: sides.entry("variance", true, Decision::Allow),
    })
}
