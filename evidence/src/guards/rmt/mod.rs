//! The RMT guard: the random-matrix edge of what each module adds to the hidden state against that of the baseline.

pub mod compare;
pub mod upstream;

use super::{Check, Fact, Finding, Guard, GuardGate, Limit};
use crate::format::guard_request::GuardMode;
use crate::format::untrusted::Node;

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
        detail,
    }),
    evaluate: |sides| match sides.request.mode {
        GuardMode::Compare => compare::evaluate(sides),
        GuardMode::Upstream => upstream::evaluate(sides),
    },
    needs_statistics: true,
    not_evaluated: &[],
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

/// One line for the terminal.
fn detail(block: Node<'_>) -> String {
    if block.get("mode").str() == Some("upstream") {
        return upstream_detail(block);
    }
    let modules = block.get("modules_checked").u64();
    let (Some(modules), Some(epsilon)) = (modules, block.get("epsilon_default").f64()) else {
        return "evaluated".to_owned();
    };
    let limit = 1.0 + epsilon;
    let violations: Vec<Node<'_>> = block.get("epsilon_violations").elements().collect();
    let number = |node: Node<'_>| node.f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.3}"));
    match violations.first() {
        Some(first) => format!(
            "{} of {modules} modules changed by more than a factor of {limit:.2}; {}: edge {} in the baseline, {} in the subject",
            violations.len(),
            first.get("module").str().unwrap_or_default(),
            number(first.get("edge_base")),
            number(first.get("edge_cur")),
        ),
        None => {
            let ratio = number(block.get("max_edge_ratio"));
            format!("{modules} modules, largest ratio of edges {ratio}, limit {limit:.2}")
        }
    }
}

/// The line of a subject that was compared with itself.
fn upstream_detail(block: Node<'_>) -> String {
    let modules = block.get("modules_checked").u64().unwrap_or_default();
    let edges = block.get("edge_risk_by_family").object().into_iter().flatten();
    let edges: Vec<String> =
        edges.filter_map(|(family, edge)| Some(format!("{family} {:.3}", edge.as_f64()?))).collect();
    format!("{modules} modules against themselves (--guards upstream), largest edges: {}", edges.join(", "))
}
