//! Upstream's checks of the guards and of the release profile, with upstream's messages.

use crate::format::untrusted::Node;
use crate::numerics::digest::spaced_json_hash;
use crate::policy::Profile;
use crate::verify::python::{float, int, is_filled_object, pair, repr, truthy};
use serde_json::Value;

pub(super) fn variance(report: Node<'_>, errors: &mut Vec<String>) {
    let variance = report.get("variance");
    if !truthy(variance.get("enabled")) {
        return;
    }
    let mut fail = |text: &str| errors.push(text.to_owned());
    let least = float(report.at("resolved_policy.variance.min_effect_lognll")).unwrap_or(0.0).max(0.0);
    let gate = variance.get("predictive_gate");
    if !is_filled_object(gate) {
        fail("variance.enabled=true requires variance.predictive_gate evidence.");
    } else {
        if gate.get("passed").bool() != Some(true) {
            fail("variance.enabled=true requires variance.predictive_gate.passed == true.");
        }
        match float(gate.get("mean_delta")) {
            None => fail("variance.enabled=true requires finite variance.predictive_gate.mean_delta."),
            Some(mean) if mean >= 0.0 => {
                fail("variance.predictive_gate.mean_delta must be negative when VE is enabled.");
            }
            Some(mean) if mean > -least => {
                fail("variance.predictive_gate.mean_delta does not meet -min_effect_lognll.");
            }
            Some(_) => {}
        }
        let bounds = if gate.get("delta_ci").is_null() { gate.get("ci") } else { gate.get("delta_ci") };
        match pair(bounds) {
            None => fail("variance.enabled=true requires finite variance.predictive_gate.delta_ci."),
            Some((low, high)) if low > high => {
                fail("variance.predictive_gate.delta_ci lower bound exceeds upper bound.");
            }
            Some((_, high)) if high >= 0.0 => {
                fail("variance.predictive_gate.delta_ci must exclude zero when VE is enabled.");
            }
            Some((_, high)) if high > -least => {
                fail("variance.predictive_gate.delta_ci upper bound does not meet -min_effect_lognll.");
            }
            Some(_) => {}
        }
    }
    let test = variance.get("ab_test");
    if !is_filled_object(test) {
        return fail("variance.enabled=true requires variance.ab_test evidence.");
    }
    let absent = |node: Node<'_>| node.is_null() || node.str() == Some("");
    if absent(test.get("seed")) && absent(test.at("provenance.seed")) {
        fail("variance.enabled=true requires variance.ab_test.seed.");
    }
    if int(test.get("windows_used")).is_none_or(|used| used == 0) {
        fail("variance.enabled=true requires positive variance.ab_test.windows_used.");
    }
    if !is_filled_object(test.get("provenance")) {
        fail("variance.enabled=true requires variance.ab_test.provenance.");
    } else if !has_window_ids(test.get("provenance").value()) {
        fail("variance.enabled=true requires variance.ab_test.provenance.window_ids.");
    }
}

/// Whether an object contains a non-empty `window_ids`, at any depth.
fn has_window_ids(value: &Value) -> bool {
    match value {
        Value::Object(members) => match members.get("window_ids").and_then(Value::as_array) {
            Some(ids) => !ids.is_empty(),
            None => members.values().any(has_window_ids),
        },
        Value::Array(elements) => elements.iter().any(has_window_ids),
        _ => false,
    }
}

pub(super) fn measurement_contracts(report: Node<'_>, profile: Profile, errors: &mut Vec<String>) {
    for guard in ["spectral", "rmt"] {
        let (block, evaluated) = (report.get(guard), report.get(guard).get("evaluated"));
        let malformed = truthy(block) && block.object().is_none();
        if malformed || (evaluated.exists() && !truthy(evaluated)) {
            continue;
        }
        let hash = |node: Node<'_>| is_filled_object(node).then(|| spaced_json_hash(node.value()));
        let computed = hash(block.get("measurement_contract"));
        let recorded = block.get("measurement_contract_hash").str().filter(|hash| !hash.is_empty());
        match (&computed, recorded) {
            (None, _) => errors.push(format!("report missing {guard}.measurement_contract.")),
            (Some(computed), Some(recorded)) if computed != recorded => errors.push(format!(
                "{guard}.measurement_contract_hash mismatch: expected={recorded}, computed={computed}."
            )),
            (Some(_), Some(_)) => {}
            (Some(_), None) => errors.push(format!("report missing {guard}.measurement_contract_hash.")),
        }
        match (hash(report.get("resolved_policy").get(guard).get("measurement_contract")), &computed) {
            (None, _) => errors.push(format!("report missing resolved_policy.{guard}.measurement_contract.")),
            (Some(policy), Some(computed)) if policy != *computed => errors.push(format!(
                "{guard} measurement_contract differs between analysis and resolved_policy (analysis={computed}, \
                 resolved_policy={policy})."
            )),
            _ => {}
        }
        if block.get("measurement_contract_match").bool() != Some(true) {
            errors.push(format!("{guard} measurement contract must match baseline for {profile} profile."));
        }
    }
}

pub(super) fn release(report: Node<'_>, errors: &mut Vec<String>, gates: &mut Vec<String>) {
    let validation = report.get("validation");
    if validation.object().is_none() {
        errors.push("Release verification requires a validation block.".to_owned());
    } else {
        let mut required = vec![
            "primary_metric_acceptable",
            "preview_final_drift_acceptable",
            "invariants_pass",
            "spectral_stable",
            "rmt_stable",
        ];
        let tail = "primary_metric_tail_acceptable";
        if report.get("primary_metric_tail").exists() || validation.get(tail).exists() {
            required.push(tail);
        }
        if truthy(report.get("guard_overhead")) && !overhead_skipped(report) {
            required.push("guard_overhead_acceptable");
        }
        for key in required.into_iter().filter(|key| validation.get(key).bool() != Some(true)) {
            let found = repr(validation.get(key));
            let failed = if validation.get(key).bool() == Some(false) { &mut *gates } else { &mut *errors };
            failed.push(format!("Release verification requires validation.{key} == true (found {found})."));
        }
    }
    let overhead = report.get("guard_overhead");
    if !is_filled_object(overhead) {
        errors.push("Release verification requires guard_overhead (missing).".to_owned());
    } else if !overhead_skipped(report) {
        if overhead.get("evaluated").bool() != Some(true) {
            errors.push("Release verification requires evaluated guard_overhead (not evaluated).".to_owned());
        }
        if overhead.get("overhead_ratio").is_null() {
            errors.push("Release verification requires guard_overhead.overhead_ratio (missing).".to_owned());
        }
    }
}

fn overhead_skipped(report: Node<'_>) -> bool {
    let overhead = report.get("guard_overhead");
    let mode = overhead.get("mode").str().unwrap_or_default().trim().to_lowercase();
    truthy(overhead.get("skipped")) || mode == "skipped"
}
