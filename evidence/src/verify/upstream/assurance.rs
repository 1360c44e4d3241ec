//! The strict assurance mode of 0.12.1.

use super::Case;
use crate::verify::python::truthy;
use serde_json::{Map, Value, json};

/// `assurance.mode`, else `context.assurance.mode`, else `off`.
pub(in crate::verify) fn assurance_mode(report: &Value) -> String {
    [&report["assurance"]["mode"], &report["context"]["assurance"]["mode"]]
        .into_iter()
        .filter_map(Value::as_str)
        .map(|mode| mode.trim().to_lowercase())
        .find(|mode| !mode.is_empty())
        .unwrap_or_else(|| "off".to_owned())
}

/// What 0.12.1 demands of a report whose own assurance mode is `strict`.
pub(super) fn strict_assurance(case: &Case<'_>, errors: &mut Vec<String>) {
    let report = case.report;
    let mut found: Vec<String> = Vec::new();
    let mut fail = |text: &str| found.push(text.to_owned());
    let synthesized = "strict assurance forbids synthesized or repaired fields.";
    let assurance = &report["assurance"];
    if !assurance.is_object() {
        fail("strict assurance report missing assurance section.");
    } else {
        if assurance["claim_set"] != json!("invarlock-weight-edit-regression-v1") {
            fail("strict assurance report has unknown claim_set.");
        }
        if assurance["mode"] != json!("strict") {
            fail("strict assurance report mode must be strict.");
        }
        let verdict = assurance["verdict"].as_str().unwrap_or_default();
        if !["pass", "pending_verifier"].contains(&verdict) {
            fail("strict assurance verdict must be pass or pending_verifier.");
        }
        let local = &assurance["report_local_verdict"];
        if verdict == "pending_verifier"
            && case.provenance_verified
            && !(local.is_null() || *local == json!("pass"))
        {
            fail("strict assurance report-local verdict must be pass.");
        }
        if assurance["canonical_guard_chain_enforced"] != json!(true) {
            fail("strict assurance requires canonical_guard_chain_enforced=true.");
        }
        if assurance["fallback_fields_used"] == json!(true) {
            fail(synthesized);
        }
        for reason in assurance["blocking_reasons"].as_array().into_iter().flatten() {
            fail(reason.as_str().unwrap_or("a blocking reason that is no text"));
        }
    }
    let first = |places: &[&Value]| {
        let text = places.iter().find_map(|place| place.as_str());
        text.unwrap_or_default().trim().to_lowercase()
    };
    let context = &report["context"];
    let profile = first(&[&assurance["profile"], &context["profile"]]);
    if !["ci", "release"].contains(&profile.as_str()) {
        fail("strict assurance requires report profile ci or release.");
    }
    let tier =
        first(&[&assurance["tier"], &report["auto"]["tier"], &context["auto"]["tier"], &context["tier"]]);
    if !["balanced", "conservative"].contains(&tier.as_str()) {
        fail("strict assurance requires report tier balanced or conservative.");
    }
    let names = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let guards: Vec<String> = report["guards"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|guard| guard["name"].as_str().map(str::to_owned))
        .collect();
    let chain = names(&assurance["guard_chain_observed"])
        .or_else(|| names(&context["guard_chain_observed"]))
        .or_else(|| (!guards.is_empty()).then_some(guards))
        .or_else(|| names(&report["plugins"]["guards"]))
        .unwrap_or_default();
    if chain != ["invariants", "spectral", "rmt", "variance", "invariants"] {
        fail("strict assurance requires canonical guard chain evidence.");
    }
    let blocking = ["synthesized_fields", "repaired_fields", "fallback_fields"].into_iter().any(|category| {
        report["report_build"][category].as_array().into_iter().flatten().any(|event| {
            event["field"] != json!("primary_metric.display_ci")
                || event["reason"] != json!("computed_from_primary_metric_ci")
        })
    });
    if blocking {
        fail(synthesized);
    }
    if !case.provenance_verified {
        fail("strict assurance requires verified runtime provenance.");
    }
    for guard in ["spectral", "rmt", "variance", "invariants"] {
        let block = &report[guard];
        if block.as_object().is_none_or(Map::is_empty) {
            fail(&format!("strict assurance missing {guard} guard evidence."));
            continue;
        }
        let status = block["status"].as_str().unwrap_or_default().trim().to_lowercase();
        if block["supported"] == json!(false) && block["assurance_blocking"] == json!(true) {
            let reason = block["reason"].as_str().unwrap_or("unsupported");
            fail(&format!("{guard} unsupported for strict assurance: {reason}."));
        }
        if ["degraded", "monitor-only", "monitor_only"].contains(&status.as_str()) {
            fail(&format!("{guard} status {status} is not strict-assurance passing."));
        }
        let decision = block["decision"].as_str().unwrap_or_default();
        let stated = block.get("decision").is_some() || block.get("passed").is_some();
        if !stated && !["ok", "pass", "passed"].contains(&status.as_str()) && block["supported"].is_null() {
            fail(&format!("{guard} missing strict guard pass evidence."));
        }
        let implied_block = stated && decision.is_empty() && !truthy(&block["passed"]);
        if decision == "block" || implied_block || block["passed"] == json!(false) {
            fail(&format!("{guard} did not pass."));
        }
    }
    for error in found {
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
}
