//! The variance guard: the scale of what each module adds to the hidden state against that of the baseline. It decides no gate.

pub mod compare;
pub mod upstream;

use super::{Fact, Guard, Outcome};
use crate::format::guard_request::GuardMode;

/// The guard.
pub(super) const GUARD: Guard = Guard {
    name: "variance",
    title: "Variance",
    purpose: "scale of what modules add to the hidden state",
    gate: None,
    evaluate: |sides| match sides.request.mode {
        GuardMode::Compare => compare::evaluate(sides),
        GuardMode::Upstream => upstream::evaluate(sides),
    },
    needs_statistics: true,
    not_evaluated: &[("enabled", false)],
    // Nothing of it can be recomputed without the run reports.
    verify: |_| Vec::new(),
    outcome: |block, _| match block.get("passed").bool() {
        Some(false) => Outcome::Failed,
        _ if block.get("monitor_only").bool() == Some(true) || block.get("enabled").bool() == Some(false) => {
            Outcome::Monitored
        }
        passed => passed.or_else(|| block.at("predictive_gate.passed").bool()).into(),
    },
    facts: |block| {
        let enabled = block.get("enabled").bool();
        let correction = |enabled| if enabled { "correction enabled" } else { "correction not applied" };
        let gain = block.get("gain").f64();
        let reason = block.at("predictive_gate.reason").str();
        let compared = block.get("mode").str() == Some("compare");
        let scales = block.get("proposed_scales").object().filter(|_| compared);
        [
            scales.map(|scales| Fact::Count(scales.len() as f64, "modules with another scale")),
            enabled.filter(|_| !compared).map(|enabled| Fact::Text(correction(enabled))),
            gain.map(|gain| Fact::Number("gain", gain, 3)),
            reason.map(|reason| Fact::Value("predictive gate:", reason.to_owned())),
        ]
        .into_iter()
        .flatten()
        .collect()
    },
};
