//! The spectral guard: singular values of the weights. Not evaluated by this version; shown and checked in reports of upstream.

use super::{Check, Fact, Finding, Guard, GuardGate, Limit};
use serde_json::Value;

/// The guard.
pub(super) const GUARD: Guard = Guard {
    name: "spectral",
    title: "Spectral",
    purpose: "singular values of the weights stay within bounds",
    gate: Some(GuardGate {
        flag: "spectral_stable",
        label: "Spectral Stable",
        title: "Spectral stability",
        measured: |block| {
            let caps = block.get("max_caps").f64().or_else(|| block.at("summary.max_caps").f64());
            (Fact::count(block, "caps_applied", "caps applied"), caps.map(Limit::AtMost))
        },
        detail: |_| "evaluated".to_owned(),
    }),
    evaluate: None,
    not_built: &[],
    verify,
    outcome: |block, flag| block.get("passed").bool().or(flag).into(),
    facts: |block| {
        let modules = Fact::count(block, "summary.modules_checked", "modules checked");
        let caps = Fact::count(block, "caps_applied", "caps applied");
        let norm = block.at("summary.max_spectral_norm").f64();
        [modules, caps, norm.map(|norm| Fact::Number("largest norm", norm, 4))]
            .into_iter()
            .flatten()
            .collect()
    },
};

fn verify(check: &Check<'_>) -> Vec<Finding> {
    let mut found = vec![Finding::NotRecomputed("spectral: its numbers need the weights".to_owned())];
    let caps = check.tier.spectral_caps();
    let applied = whole(check.block.get("caps_applied").value()).unwrap_or(0);
    let exceeded = check.block.get("caps_exceeded").value();
    let exceeded = !matches!(exceeded, Value::Null | Value::Bool(false)) && exceeded.as_f64() != Some(0.0);
    if check.profile.gated() && (applied > caps || exceeded) {
        let tier = check.tier;
        found.push(Finding::Gate(format!(
            "spectral.caps_applied is {applied}, the {tier} tier allows {caps}"
        )));
    }
    found
}

/// A number of 0 or more without its fraction, or a string that is one: upstream writes both.
fn whole(value: &Value) -> Option<u64> {
    let float = |value: &Value| {
        value.as_f64().filter(|float| (0.0..1.8e19).contains(float)).map(|float| float as u64)
    };
    value.as_u64().or_else(|| float(value)).or_else(|| value.as_str()?.trim().parse().ok())
}
