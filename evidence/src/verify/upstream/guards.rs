//! The checks of the guards and of the release profile.

use crate::numerics::digest::spaced_json_hash;
use crate::policy::Profile;
use crate::verify::python::{float, int, pair, repr, truthy};
use serde_json::{Map, Value, json};

pub(super) fn variance(report: &Value, errors: &mut Vec<String>) {
    let variance = &report["variance"];
    if !truthy(&variance["enabled"]) {
        return;
    }
    let mut fail = |text: &str| errors.push(text.to_owned());
    let least = float(&report["resolved_policy"]["variance"]["min_effect_lognll"]).unwrap_or(0.0).max(0.0);
    let gate = &variance["predictive_gate"];
    if gate.as_object().is_none_or(Map::is_empty) {
        fail("variance.enabled=true requires variance.predictive_gate evidence.");
    } else {
        if gate["passed"] != json!(true) {
            fail("variance.enabled=true requires variance.predictive_gate.passed == true.");
        }
        match float(&gate["mean_delta"]) {
            None => fail("variance.enabled=true requires finite variance.predictive_gate.mean_delta."),
            Some(mean) if mean >= 0.0 => {
                fail("variance.predictive_gate.mean_delta must be negative when VE is enabled.");
            }
            Some(mean) if mean > -least => {
                fail("variance.predictive_gate.mean_delta does not meet -min_effect_lognll.");
            }
            Some(_) => {}
        }
        let bounds = if gate["delta_ci"].is_null() { &gate["ci"] } else { &gate["delta_ci"] };
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
    let test = &variance["ab_test"];
    if test.as_object().is_none_or(Map::is_empty) {
        return fail("variance.enabled=true requires variance.ab_test evidence.");
    }
    let absent = |value: &Value| value.is_null() || value.as_str() == Some("");
    if absent(&test["seed"]) && absent(&test["provenance"]["seed"]) {
        fail("variance.enabled=true requires variance.ab_test.seed.");
    }
    if int(&test["windows_used"]).is_none_or(|used| used == 0) {
        fail("variance.enabled=true requires positive variance.ab_test.windows_used.");
    }
    if test["provenance"].as_object().is_none_or(Map::is_empty) {
        fail("variance.enabled=true requires variance.ab_test.provenance.");
    } else if !has_window_ids(&test["provenance"]) {
        fail("variance.enabled=true requires variance.ab_test.provenance.window_ids.");
    }
}

pub(super) fn has_window_ids(node: &Value) -> bool {
    match node {
        Value::Object(members) => match members.get("window_ids").and_then(Value::as_array) {
            Some(ids) => !ids.is_empty(),
            None => members.values().any(has_window_ids),
        },
        Value::Array(members) => members.iter().any(has_window_ids),
        _ => false,
    }
}

pub(super) fn measurement_contracts(report: &Value, profile: Profile, errors: &mut Vec<String>) {
    for guard in ["spectral", "rmt"] {
        let block = &report[guard];
        let malformed = truthy(block) && !block.is_object();
        if malformed || block.get("evaluated").is_some_and(|flag| !truthy(flag)) {
            continue;
        }
        let hash = |value: &Value| {
            value.as_object().filter(|members| !members.is_empty()).map(|_| spaced_json_hash(value))
        };
        let computed = hash(&block["measurement_contract"]);
        let recorded = block["measurement_contract_hash"].as_str().filter(|hash| !hash.is_empty());
        match (&computed, recorded) {
            (None, _) => errors.push(format!("report missing {guard}.measurement_contract.")),
            (Some(computed), Some(recorded)) if computed != recorded => errors.push(format!(
                "{guard}.measurement_contract_hash mismatch: expected={recorded}, computed={computed}."
            )),
            (Some(_), Some(_)) => {}
            (Some(_), None) => errors.push(format!("report missing {guard}.measurement_contract_hash.")),
        }
        match (hash(&report["resolved_policy"][guard]["measurement_contract"]), &computed) {
            (None, _) => errors.push(format!("report missing resolved_policy.{guard}.measurement_contract.")),
            (Some(policy), Some(computed)) if policy != *computed => errors.push(format!(
                "{guard} measurement_contract differs between analysis and resolved_policy (analysis={computed}, \
                 resolved_policy={policy})."
            )),
            _ => {}
        }
        if block["measurement_contract_match"] != json!(true) {
            errors.push(format!("{guard} measurement contract must match baseline for {profile} profile."));
        }
    }
}

pub(super) fn release(report: &Value, errors: &mut Vec<String>, gates: &mut Vec<String>) {
    let validation = &report["validation"];
    if !validation.is_object() {
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
        if report.get("primary_metric_tail").is_some() || validation.get(tail).is_some() {
            required.push(tail);
        }
        if truthy(&report["guard_overhead"]) && !overhead_skipped(report) {
            required.push("guard_overhead_acceptable");
        }
        for key in required.into_iter().filter(|key| validation[*key] != json!(true)) {
            let found = repr(&validation[key]);
            let failed = if validation[key] == json!(false) { &mut *gates } else { &mut *errors };
            failed.push(format!("Release verification requires validation.{key} == true (found {found})."));
        }
    }
    let overhead = &report["guard_overhead"];
    if overhead.as_object().is_none_or(Map::is_empty) {
        errors.push("Release verification requires guard_overhead (missing).".to_owned());
    } else if !overhead_skipped(report) {
        if overhead["evaluated"] != json!(true) {
            errors.push("Release verification requires evaluated guard_overhead (not evaluated).".to_owned());
        }
        if overhead["overhead_ratio"].is_null() {
            errors.push("Release verification requires guard_overhead.overhead_ratio (missing).".to_owned());
        }
    }
}

pub(super) fn overhead_skipped(report: &Value) -> bool {
    let overhead = &report["guard_overhead"];
    let mode = overhead["mode"].as_str().unwrap_or_default().trim().to_lowercase();
    truthy(&overhead["skipped"]) || mode == "skipped"
}
