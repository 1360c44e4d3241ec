//! Verdicts as JSON, as one human-readable line, and as an exit code.

use super::summary::Summary;
use super::upstream::assurance_mode;
use super::{Reason, Trust, Verdict};
use crate::format::untrusted::Node;
use crate::numerics::digest::python_json;
use serde_json::{Value, json};

/// `verification.runtime_provenance`.
pub(super) fn provenance(
    report: Node<'_>,
    issues: &[(&'static str, String)],
    verified: bool,
    skipped: bool,
    trust: Trust,
) -> Value {
    let context = report.get("context");
    let declared = [
        context.at("runtime.execution_mode"),
        context.at("runtime.runtime_provenance_declared"),
        context.get("execution_mode"),
        report.at("provenance.runtime.execution_mode"),
        report.at("provenance.execution_mode"),
        report.at("meta.execution_mode"),
    ]
    .into_iter()
    .filter_map(Node::str)
    .map(|mode| mode.trim().to_lowercase())
    .find(|mode| !mode.is_empty())
    .unwrap_or_else(|| "unknown".to_owned());
    let issues: Vec<Value> = issues
        .iter()
        .map(|(code, message)| json!({"code": code, "message": message, "details": {}}))
        .collect();
    let status = match (verified, skipped, trust) {
        (_, true, _) => "skipped",
        (true, _, Trust::ExpectedImageDigestMatched) => "matched",
        (true, _, _) => "manifest_bound",
        _ => "failed",
    };
    json!({
        "declared_mode": declared,
        "status": status,
        "verified": status == "verified",
        "skipped": skipped,
        "strict_blocking": !verified,
        "issues": issues,
        "assurance_mode": assurance_mode(report),
    })
}

/// The verdicts of several reports as one JSON object; print it with [`to_line`]. `timestamp` is UTC ISO-8601.
pub fn envelope(verdicts: &[Verdict], timestamp: &str) -> Value {
    let reason = overall(verdicts);
    let mut object = json!({
        "format_version": "verify-v1",
        "component": "cli",
        "ts": timestamp,
        "summary": {"ok": reason == Reason::Ok, "reason": reason.as_str()},
        "evaluation_report": {"count": verdicts.len()},
        "results": verdicts.iter().map(result).collect::<Vec<_>>(),
    });
    if let Some(verdict) = verdicts.iter().find(|verdict| verdict.stopped_by.is_some())
        && let Some(stopped) = &verdict.stopped_by
    {
        object["error"] = json!({
            "code": stopped.code,
            "category": stopped.category,
            "message": stopped.message,
            "recoverable": false,
            "context": stopped.context,
        });
        if verdict.summary.is_none() {
            object["resolution"] = json!({"exit_code": exit_code(verdicts)});
        }
    }
    object
}

fn overall(verdicts: &[Verdict]) -> Reason {
    if let Some(stopped) = verdicts.iter().find(|verdict| verdict.stopped_by.is_some()) {
        return stopped.reason;
    }
    let worst = |reason: Reason| verdicts.iter().any(|verdict| verdict.reason == reason);
    if verdicts.is_empty() {
        return Reason::Malformed;
    }
    let failed = [Reason::Malformed, Reason::Integrity, Reason::PolicyFail];
    failed.into_iter().find(|reason| worst(*reason)).unwrap_or(Reason::Ok)
}

/// The exit code of several verdicts: that of the first that stopped the checks, otherwise the largest.
pub fn exit_code(verdicts: &[Verdict]) -> i32 {
    verdicts
        .iter()
        .find(|verdict| verdict.stopped_by.is_some())
        .map(Verdict::exit_code)
        .or_else(|| verdicts.iter().map(Verdict::exit_code).max())
        .unwrap_or(2)
}

fn result(verdict: &Verdict) -> Value {
    let nothing = Summary::default();
    let summary = verdict.summary.as_ref().unwrap_or(&nothing);
    json!({
        "id": verdict.path.display().to_string(),
        "schema_version": "v1",
        "kind": summary.kind.as_deref().unwrap_or_default().to_lowercase(),
        "ok": verdict.ok(),
        "reason": verdict.reason.as_str(),
        "ratio_vs_baseline": summary.ratio,
        "ci": summary.interval,
        "recompute": summary.recompute,
        "guard_warnings_present": summary.guard_warnings > 0,
        "warning_count": summary.guard_warnings,
        "verification": {"runtime_provenance": verdict.provenance},
        "assurance": verdict.assurance.as_str(),
        "assurance_meaning": verdict.assurance.meaning(),
        "about": verdict.about,
        "judged": verdict.judged,
        "matched": verdict.matched,
        "host_execution": verdict.host_execution,
        "reproduction": verdict.reproduction,
        "errors": verdict.all_errors().collect::<Vec<_>>(),
        "gate_failures": verdict.gate_failures,
        "recomputed": verdict.recomputed,
        "not_recomputed": verdict.not_recomputed,
    })
}

/// Upstream's output line for a report that verifies, and the assurance.
pub fn success_line(verdict: &Verdict) -> String {
    let nothing = Summary::default();
    let summary = verdict.summary.as_ref().unwrap_or(&nothing);
    let mut line = format!("VERIFY OK metric={}", summary.kind.as_deref().unwrap_or("?"));
    if let Some((preview, last)) = summary.windows {
        line += &format!(" n={preview}/{last}");
    }
    if let Some(ratio) = summary.ratio {
        line += &format!(" point={ratio:.6}");
    }
    if let Some((low, high)) = summary.interval {
        line += &format!(" ci=[{low:.6},{high:.6}] width={:.6}", high - low);
    }
    if let Some(tier) = &summary.tier {
        line += &format!(" tier={tier}");
    }
    line + &format!(" assurance={}", verdict.assurance.as_str())
}

/// One line of JSON with sorted keys.
pub fn to_line(value: &Value) -> String {
    python_json(value, ", ", ": ")
}
