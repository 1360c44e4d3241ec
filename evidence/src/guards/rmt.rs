//! The RMT guard: the random-matrix edge of the activations. Not evaluated by this version; shown and checked in reports of upstream.

use super::{Check, Fact, Finding, Guard, GuardGate, Limit};

/// The guard.
pub(super) const GUARD: Guard = Guard {
    name: "rmt",
    title: "RMT",
    purpose: "random-matrix edge of the activations stays within bounds",
    gate: Some(GuardGate {
        flag: "rmt_stable",
        label: "Rmt Stable",
        title: "RMT stability",
        measured: |block| {
            let families = block.get("epsilon_violations").array();
            (
                families.map(|families| Fact::Count(families.len() as f64, "families out of band")),
                block.get("epsilon_default").f64().map(Limit::Epsilon),
            )
        },
        detail: |_| "evaluated".to_owned(),
    }),
    evaluate: None,
    not_built: &[],
    verify,
    outcome: |block, _| block.get("stable").bool().or_else(|| block.get("passed").bool()).into(),
    facts: |block| {
        let families = block.get("families").object();
        let edge = block.get("max_edge_ratio").f64();
        [
            families.map(|families| Fact::Count(families.len() as f64, "families")),
            edge.map(|edge| Fact::Ratio("largest edge ratio", edge)),
        ]
        .into_iter()
        .flatten()
        .collect()
    },
};

fn verify(check: &Check<'_>) -> Vec<Finding> {
    let mut found = vec![Finding::NotRecomputed("rmt: its numbers need the weights".to_owned())];
    if check.profile.gated() && check.block.get("stable").bool() == Some(false) {
        found.push(Finding::Gate("rmt.stable is false".to_owned()));
    }
    found
}
