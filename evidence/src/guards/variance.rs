//! The variance guard: whether equalising variance would have helped. Not evaluated by this version; it decides no gate.

use super::{Fact, Guard, Outcome, not_built};

/// The guard.
pub(super) const GUARD: Guard = Guard {
    name: "variance",
    title: "Variance",
    purpose: "whether equalising variance would have helped",
    gate: None,
    evaluate: None,
    not_built: &[("enabled", false)],
    verify: not_built::verify,
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
        [
            enabled.map(|enabled| Fact::Text(correction(enabled))),
            gain.map(|gain| Fact::Number("gain", gain, 3)),
            reason.map(|reason| Fact::Value("predictive gate:", reason.to_owned())),
        ]
        .into_iter()
        .flatten()
        .collect()
    },
};
