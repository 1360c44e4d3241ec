//! The strict assurance mode of upstream 0.12.1, with upstream's messages.

use super::Case;
use crate::format::untrusted::Node;
use crate::verify::python::{is_filled_object, truthy};

/// `assurance.mode`, else `context.assurance.mode`, else `off`.
pub(in crate::verify) fn assurance_mode(report: Node<'_>) -> String {
    [report.at("assurance.mode"), report.at("context.assurance.mode")]
        .into_iter()
        .filter_map(Node::str)
        .map(|mode| mode.trim().to_lowercase())
        .find(|mode| !mode.is_empty())
        .unwrap_or_else(|| "off".to_owned())
}

/// What 0.12.1 requires of a report whose own assurance mode is `strict`.
pub(super) fn strict_assurance(case: &Case<'_>, errors: &mut Vec<String>) {
    let report = case.report;
    let mut found: Vec<String> = Vec::new();
    let mut fail = |text: &str| found.push(text.to_owned());
    let synthesized = "strict assurance forbids synthesized or repaired fields.";
    let assurance = report.get("assurance");
    if assurance.object().is_none() {
        fail("strict assurance report missing assurance section.");
    } else {
        if assurance.get("claim_set").str() != Some("invarlock-weight-edit-regression-v1") {
            fail("strict assurance report has unknown claim_set.");
        }
        if assurance.get("mode").str() != Some("strict") {
            fail("strict assurance report mode must be strict.");
        }
        let verdict = assurance.get("verdict").str().unwrap_or_default();
        if !["pass", "pending_verifier"].contains(&verdict) {
            fail("strict assurance verdict must be pass or pending_verifier.");
        }
        let local = assurance.get("report_local_verdict");
        if verdict == "pending_verifier"
            && case.provenance_verified
            && !(local.is_null() || local.str() == Some("pass"))
        {
            fail("strict assurance report-local verdict must be pass.");
        }
        if assurance.get("canonical_guard_chain_enforced").bool() != Some(true) {
            fail("strict assurance requires canonical_guard_chain_enforced=true.");
        }
        if assurance.get("fallback_fields_used").bool() == Some(true) {
            fail(synthesized);
        }
        for reason in assurance.get("blocking_reasons").elements() {
            fail(reason.str().unwrap_or("a blocking reason that is not a string"));
        }
    }
    let first = |places: &[Node<'_>]| {
        let text = places.iter().find_map(|place| place.str());
        text.unwrap_or_default().trim().to_lowercase()
    };
    let context = report.get("context");
    let profile = first(&[assurance.get("profile"), context.get("profile")]);
    if !["ci", "release"].contains(&profile.as_str()) {
        fail("strict assurance requires report profile ci or release.");
    }
    let tier =
        first(&[assurance.get("tier"), report.at("auto.tier"), context.at("auto.tier"), context.get("tier")]);
    if !["balanced", "conservative"].contains(&tier.as_str()) {
        fail("strict assurance requires report tier balanced or conservative.");
    }
    let names = |node: Node<'_>| -> Option<Vec<String>> {
        node.array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let guards: Vec<String> = report
        .get("guards")
        .elements()
        .filter_map(|guard| guard.get("name").str().map(str::to_owned))
        .collect();
    let chain = names(assurance.get("guard_chain_observed"))
        .or_else(|| names(context.get("guard_chain_observed")))
        .or_else(|| (!guards.is_empty()).then_some(guards))
        .or_else(|| names(report.at("plugins.guards")))
        .unwrap_or_default();
    if chain != ["invariants", "spectral", "rmt", "variance", "invariants"] {
        fail("strict assurance requires canonical guard chain evidence.");
    }
    let blocking = ["synthesized_fields", "repaired_fields", "fallback_fields"].into_iter().any(|category| {
        report.get("report_build").get(category).elements().any(|event| {
            event.get("field").str() != Some("primary_metric.display_ci")
                || event.get("reason").str() != Some("computed_from_primary_metric_ci")
        })
    });
    if blocking {
        fail(synthesized);
    }
    if !case.provenance_verified {
        fail("strict assurance requires verified runtime provenance.");
    }
    for guard in ["spectral", "rmt", "variance", "invariants"] {
        let block = report.get(guard);
        if !is_filled_object(block) {
            fail(&format!("strict assurance missing {guard} guard evidence."));
            continue;
        }
        let status = block.get("status").str().unwrap_or_default().trim().to_lowercase();
        if block.get("supported").bool() == Some(false)
            && block.get("assurance_blocking").bool() == Some(true)
        {
            let reason = block.get("reason").str().unwrap_or("unsupported");
            fail(&format!("{guard} unsupported for strict assurance: {reason}."));
        }
        if ["degraded", "monitor-only", "monitor_only"].contains(&status.as_str()) {
            fail(&format!("{guard} status {status} is not strict-assurance passing."));
        }
        let decision = block.get("decision").str().unwrap_or_default();
        let stated = block.get("decision").exists() || block.get("passed").exists();
        if !stated && !["ok", "pass", "passed"].contains(&status.as_str()) && block.get("supported").is_null()
        {
            fail(&format!("{guard} missing strict guard pass evidence."));
        }
        let implied_block = stated && decision.is_empty() && !truthy(block.get("passed"));
        if decision == "block" || implied_block || block.get("passed").bool() == Some(false) {
            fail(&format!("{guard} did not pass."));
        }
    }
    for error in found {
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
}
