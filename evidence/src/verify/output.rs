//! Verdicts as JSON, as one line for people, and as an exit code (`spec/verify.md` section 6).

use super::upstream::assurance_mode;
use super::{Reason, Trust, Verdict};
use crate::numerics::digest::python_json;
use crate::numerics::stats::weighted_mean;
use serde_json::{Value, json};

/// `verification.runtime_provenance`.
pub(super) fn provenance(
    report: &Value,
    issues: &[(&'static str, String)],
    verified: bool,
    skipped: bool,
    trust: Trust,
) -> Value {
    let context = &report["context"];
    let declared = [
        &context["runtime"]["execution_mode"],
        &context["runtime"]["runtime_provenance_declared"],
        &context["execution_mode"],
        &report["provenance"]["runtime"]["execution_mode"],
        &report["provenance"]["execution_mode"],
        &report["meta"]["execution_mode"],
    ]
    .into_iter()
    .filter_map(Value::as_str)
    .map(|mode| mode.trim().to_lowercase())
    .find(|mode| !mode.is_empty())
    .unwrap_or_else(|| "unknown".to_owned());
    let issues: Vec<Value> = issues
        .iter()
        .map(|(code, message)| json!({"code": code, "message": message, "details": {}}))
        .collect();
    // Upstream calls a manifest that merely binds the report `verified`; without a pinned image ours does not.
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
        "results": verdicts.iter().map(row).collect::<Vec<_>>(),
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

/// The exit code of several verdicts: of the first that stopped the checks, else of the worst.
pub fn exit_code(verdicts: &[Verdict]) -> i32 {
    verdicts
        .iter()
        .find(|verdict| verdict.stopped_by.is_some())
        .map(Verdict::exit_code)
        .or_else(|| verdicts.iter().map(Verdict::exit_code).max())
        .unwrap_or(2)
}

fn row(verdict: &Verdict) -> Value {
    let null = Value::Null;
    let report = verdict.report.as_ref().unwrap_or(&null);
    let metric = &report["primary_metric"];
    let ci = metric["display_ci"]
        .as_array()
        .filter(|bounds| bounds.len() == 2 && bounds.iter().all(Value::is_number));
    let warnings = report["guard_warnings"]["warning_count"].as_u64().unwrap_or_default();
    json!({
        "id": verdict.path.display().to_string(),
        "schema_version": "v1",
        "kind": metric["kind"].as_str().unwrap_or_default().to_lowercase(),
        "ok": verdict.ok(),
        "reason": verdict.reason.as_str(),
        "ratio_vs_baseline": metric["ratio_vs_baseline"].as_f64(),
        "ci": ci,
        "recompute": recompute(verdict, report),
        "guard_warnings_present": warnings > 0,
        "warning_count": warnings,
        "verification": {"runtime_provenance": verdict.provenance},
        "trust_status": verdict.trust.as_str(),
        "errors": verdict.all_errors().collect::<Vec<_>>(),
        "gate_failures": verdict.gate_failures,
        "recomputed": verdict.recomputed,
        "not_recomputed": verdict.not_recomputed,
    })
}

fn recompute(verdict: &Verdict, report: &Value) -> Value {
    let metric = &report["primary_metric"];
    let kind = metric["kind"].as_str().unwrap_or_default();
    let (family, computed) = if kind == "accuracy" {
        let classes = &report["metrics"]["classification"];
        let counts = classes["n_correct"].as_f64().zip(classes["n_total"].as_f64());
        ("accuracy", counts.filter(|(_, total)| *total > 0.0).map(|(correct, total)| correct / total))
    } else if kind.starts_with("ppl") {
        let arm = &report["evaluation_windows"]["final"];
        let losses: Option<Vec<f64>> =
            arm["logloss"].as_array().and_then(|losses| losses.iter().map(Value::as_f64).collect());
        let weights: Option<Vec<u64>> =
            arm["token_counts"].as_array().and_then(|counts| counts.iter().map(Value::as_u64).collect());
        let mean = losses.zip(weights).and_then(|(losses, weights)| weighted_mean(&losses, &weights));
        ("ppl", mean.map(f64::exp))
    } else {
        return Value::Null;
    };
    let Some(computed) = computed else { return json!({"family": family, "ok": true, "reason": "skipped"}) };
    let tolerance = verdict.tolerance.max(1e-12);
    let ok = metric["final"].as_f64().is_some_and(|last| (last - computed).abs() <= tolerance);
    json!({"family": family, "ok": ok, "reason": if ok { Value::Null } else { json!("mismatch") }})
}

/// Upstream's line for a report that verifies.
pub fn success_line(verdict: &Verdict) -> String {
    let null = Value::Null;
    let report = verdict.report.as_ref().unwrap_or(&null);
    let metric = &report["primary_metric"];
    let mut line = format!("VERIFY OK metric={}", metric["kind"].as_str().unwrap_or("?"));
    let windows = &report["dataset"]["windows"];
    if let (Some(preview), Some(last)) = (windows["preview"].as_u64(), windows["final"].as_u64()) {
        line += &format!(" n={preview}/{last}");
    }
    if let Some(ratio) = metric["ratio_vs_baseline"].as_f64() {
        line += &format!(" point={ratio:.6}");
    }
    if let (Some(low), Some(high)) = (metric["display_ci"][0].as_f64(), metric["display_ci"][1].as_f64()) {
        line += &format!(" ci=[{low:.6},{high:.6}] width={:.6}", high - low);
    }
    if let Some(tier) = report["auto"]["tier"].as_str() {
        line += &format!(" tier={tier}");
    }
    line + &format!(" trust={}", verdict.trust.as_str())
}

/// One line of JSON with sorted keys.
pub fn to_line(value: &Value) -> String {
    python_json(value, ", ", ": ")
}
