//! Verdicts as JSON, as one human-readable line, and as an exit code.

use super::upstream::assurance_mode;
use super::{Reason, Trust, Verdict};
use crate::format::untrusted::Node;
use crate::numerics::digest::python_json;
use crate::numerics::stats::weighted_mean;
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
    // Upstream also calls a manifest that only binds the report `verified`. Here that requires a pinned image.
    let status = match (verified, skipped, trust) {
        (_, true, _) => "skipped",
        (true, _, Trust::ExpectedImageDigestMatched) => "verified",
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
        if verdict.report.is_none() {
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
    match (worst(Reason::Malformed) || verdicts.is_empty(), worst(Reason::PolicyFail)) {
        (true, _) => Reason::Malformed,
        (false, true) => Reason::PolicyFail,
        (false, false) => Reason::Ok,
    }
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
    let null = Value::Null;
    let report = Node::root("", verdict.report.as_ref().unwrap_or(&null));
    let metric = report.get("primary_metric");
    let ci = metric
        .get("display_ci")
        .array()
        .filter(|bounds| bounds.len() == 2 && bounds.iter().all(Value::is_number));
    let warnings = report.at("guard_warnings.warning_count").u64().unwrap_or_default();
    json!({
        "id": verdict.path.display().to_string(),
        "schema_version": "v1",
        "kind": metric.get("kind").str().unwrap_or_default().to_lowercase(),
        "ok": verdict.ok(),
        "reason": verdict.reason.as_str(),
        "ratio_vs_baseline": metric.get("ratio_vs_baseline").f64(),
        "ci": ci,
        "recompute": recompute(verdict, report),
        "guard_warnings_present": warnings > 0,
        "warning_count": warnings,
        "verification": {"runtime_provenance": verdict.provenance},
        "trust_status": verdict.trust.as_str(),
        "host_execution": verdict.host_execution,
        "errors": verdict.all_errors().collect::<Vec<_>>(),
        "gate_failures": verdict.gate_failures,
        "recomputed": verdict.recomputed,
        "not_recomputed": verdict.not_recomputed,
    })
}

fn recompute(verdict: &Verdict, report: Node<'_>) -> Value {
    let metric = report.get("primary_metric");
    let kind = metric.get("kind").str().unwrap_or_default();
    let (family, computed) = if kind == "accuracy" {
        let classes = report.at("metrics.classification");
        let counts = classes.get("n_correct").f64().zip(classes.get("n_total").f64());
        ("accuracy", counts.filter(|(_, total)| *total > 0.0).map(|(correct, total)| correct / total))
    } else if kind.starts_with("ppl") {
        let arm = report.at("evaluation_windows.final");
        let losses: Option<Vec<f64>> =
            arm.get("logloss").array().and_then(|losses| losses.iter().map(Value::as_f64).collect());
        let weights: Option<Vec<u64>> =
            arm.get("token_counts").array().and_then(|counts| counts.iter().map(Value::as_u64).collect());
        let mean = losses.zip(weights).and_then(|(losses, weights)| weighted_mean(&losses, &weights));
        ("ppl", mean.map(f64::exp))
    } else {
        return Value::Null;
    };
    let Some(computed) = computed else { return json!({"family": family, "ok": true, "reason": "skipped"}) };
    let tolerance = verdict.tolerance.max(1e-12);
    let ok = metric.get("final").f64().is_some_and(|last| (last - computed).abs() <= tolerance);
    json!({"family": family, "ok": ok, "reason": if ok { Value::Null } else { json!("mismatch") }})
}

/// Upstream's output line for a report that verifies.
pub fn success_line(verdict: &Verdict) -> String {
    let null = Value::Null;
    let report = Node::root("", verdict.report.as_ref().unwrap_or(&null));
    let metric = report.get("primary_metric");
    let mut line = format!("VERIFY OK metric={}", metric.get("kind").str().unwrap_or("?"));
    let windows = report.at("dataset.windows");
    if let (Some(preview), Some(last)) = (windows.get("preview").u64(), windows.get("final").u64()) {
        line += &format!(" n={preview}/{last}");
    }
    if let Some(ratio) = metric.get("ratio_vs_baseline").f64() {
        line += &format!(" point={ratio:.6}");
    }
    let ci = metric.get("display_ci");
    if let (Some(low), Some(high)) = (ci.index(0).f64(), ci.index(1).f64()) {
        line += &format!(" ci=[{low:.6},{high:.6}] width={:.6}", high - low);
    }
    if let Some(tier) = report.at("auto.tier").str() {
        line += &format!(" tier={tier}");
    }
    line + &format!(" trust={}", verdict.trust.as_str())
}

/// One line of JSON with sorted keys.
pub fn to_line(value: &Value) -> String {
    python_json(value, ", ", ": ")
}
