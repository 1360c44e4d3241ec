//! The gates of an evaluation report: passed, failed or not evaluated. The terminal, `--json` and the page use the same result.
//!
//! A report is read as untrusted JSON, because the page also shows reports of others. Nothing is verified here.

use crate::format::evaluation_report::Validation;
use crate::format::untrusted::Node;
use crate::guards::{self, Guard, GuardGate, Outcome};
use crate::policy::Profile;
use crate::sentences::not_evaluated;
use serde_json::Value;

/// Flag of the gate of the tail.
pub(crate) const TAIL: &str = "primary_metric_tail_acceptable";

/// One gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Its label, as upstream's console has it.
    pub name: &'static str,
    /// Its flag in `validation`.
    pub flag: &'static str,
    /// `None`: not evaluated or not decided on; neither passed nor failed.
    pub passed: Option<bool>,
    /// It passed with a warning.
    pub warned: bool,
    /// One line: the numbers, or why it was not evaluated.
    pub detail: String,
}

/// What a report says of one gate.
enum Result {
    /// It was evaluated; the numbers.
    Evaluated(String),
    /// It was not, with the reason if the report has one.
    NotEvaluated(Option<String>),
}

impl Result {
    /// Evaluated, if the report has the numbers.
    fn new(evaluated: bool, numbers: impl FnOnce() -> Option<String>, block: Node<'_>) -> Self {
        evaluated.then(numbers).flatten().map_or_else(|| Result::skipped(block), Result::Evaluated)
    }

    fn skipped(block: Node<'_>) -> Self {
        let reason = block.get("reason").str().or_else(|| block.get("skip_reason").str());
        Result::NotEvaluated(reason.map(str::to_owned))
    }
}

/// Whether every deciding flag is true.
pub(crate) fn all_true(profile: Profile, validation: &Validation) -> bool {
    validation.iter().all(|(flag, value)| !profile.decides(flag) || value)
}

/// The profile that a report names; all gates of an unknown profile decide.
pub fn profile(report: &Value) -> Profile {
    let name = Node::root("", report).at("meta.profile").str();
    name.and_then(|name| name.parse().ok()).unwrap_or(Profile::Ci)
}

/// The gates of a report, in the order in which they are shown.
pub fn gates(report: &Value) -> Vec<Gate> {
    let profile = profile(report);
    let report = Node::root("", report);
    let validation = report.get("validation");
    let guards = guards::TABLE.iter().filter_map(|guard| Some((guard, guard.gate.as_ref()?)));
    let mut gates = vec![
        ("Primary Metric Acceptable", "primary_metric_acceptable", ratio(report)),
        ("Preview Final Drift Acceptable", "preview_final_drift_acceptable", drift(report)),
    ];
    gates.extend(guards.map(|(guard, gate)| (gate.label, gate.flag, guard_result(guard, gate, report))));
    gates.push(("Guard Overhead Acceptable", "guard_overhead_acceptable", overhead(report)));
    gates.push(("Primary Metric Tail Acceptable", TAIL, tail(report)));
    let gate = |(name, flag, result)| {
        let decides = profile.decides(flag);
        let (evaluated, detail) = match result {
            Result::Evaluated(detail) if decides => (true, detail),
            Result::Evaluated(detail) => (true, format!("{detail}; profile {profile} does not decide on it")),
            Result::NotEvaluated(reason) => (false, not_evaluated(reason.as_deref())),
        };
        let passed = validation.get(flag).bool().filter(|_| decides && evaluated);
        let warned = passed == Some(true) && warned(flag, report);
        Gate { name, flag, passed, warned, detail }
    };
    gates.into_iter().map(gate).collect()
}

/// Whether the guard or the tail behind a flag states a warning.
fn warned(flag: &str, report: Node<'_>) -> bool {
    let guard = guards::TABLE.iter().find(|guard| guard.gate.as_ref().is_some_and(|gate| gate.flag == flag));
    match guard {
        Some(guard) => (guard.outcome)(guard.block(report), None) == Outcome::Warned,
        None => flag == TAIL && report.at("primary_metric_tail.warned").bool() == Some(true),
    }
}

fn ratio(report: Node<'_>) -> Result {
    let limit = report.at("resolved_policy.metrics.pm_ratio");
    let limit = limit.get("ratio_limit_base").f64().zip(limit.get("hysteresis_ratio").f64());
    Result::Evaluated(match (report.at("primary_metric.ratio_vs_baseline").f64(), limit) {
        (Some(ratio), Some((base, hysteresis))) => {
            format!("perplexity ratio {ratio:.6}, limit {:.3}", base + hysteresis)
        }
        (Some(ratio), None) => format!("perplexity ratio {ratio:.6}"),
        _ => "no finite perplexity ratio".to_owned(),
    })
}

fn drift(report: Node<'_>) -> Result {
    let metric = report.get("primary_metric");
    let drift = metric.get("final").f64().zip(metric.get("preview").f64()).map(|(last, first)| last / first);
    let band = metric.at("drift_band.min").f64().zip(metric.at("drift_band.max").f64());
    Result::Evaluated(match (drift, band) {
        (Some(drift), Some((low, high))) => {
            format!("final/preview {drift:.6}, band {low:.2} to {high:.2}")
        }
        (Some(drift), None) => format!("final/preview {drift:.6}"),
        _ => "no preview or final perplexity".to_owned(),
    })
}

fn guard_result(guard: &Guard, gate: &GuardGate, report: Node<'_>) -> Result {
    let block = guard.block(report);
    Result::new(Guard::is_evaluated(block), || Some((gate.detail)(block)), block)
}

fn overhead(report: Node<'_>) -> Result {
    let block = report.get("guard_overhead");
    let numbers =
        || block.get("overhead_ratio").f64().map(|ratio| format!("guarded/bare perplexity {ratio:.6}"));
    Result::new(block.get("evaluated").bool() == Some(true), numbers, block)
}

fn tail(report: Node<'_>) -> Result {
    let block = report.get("primary_metric_tail");
    let numbers = || {
        let (q95, limit) = block.at("stats.q95").f64().zip(block.at("policy.quantile_max").f64())?;
        Some(format!(
            "95th percentile of (subject loss − baseline loss) per window, in nats per token: {q95:.4}; above {limit:.2} gives a warning"
        ))
    };
    Result::new(block.get("evaluated").bool() == Some(true), numbers, block)
}

/// A sentence for each gate that failed.
pub fn failures(report: &Value) -> Vec<String> {
    let failed = gates(report).into_iter().filter(|gate| gate.passed == Some(false));
    failed.map(|gate| format!("{}: {}", gate.name, gate.detail)).collect()
}

/// Whether the primary metric passed and no gate failed.
pub fn passed(report: &Value) -> bool {
    all_passed(&gates(report))
}

fn all_passed(gates: &[Gate]) -> bool {
    gates.first().is_some_and(|first| first.passed == Some(true))
        && gates.iter().all(|gate| gate.passed != Some(false))
}

/// One line: verdict, ratio with its interval, perplexities, and the gates that failed.
pub fn verdict_line(report: &Value) -> String {
    let gates = gates(report);
    let report = Node::root("", report);
    let metric = report.get("primary_metric");
    let mut line = if all_passed(&gates) { "PASS".to_owned() } else { "FAIL".to_owned() };
    if let Some(ratio) = metric.get("ratio_vs_baseline").f64() {
        line += &format!(" ratio={ratio:.6}");
    }
    let interval = metric.get("display_ci");
    if let Some((low, high)) = interval.index(0).f64().zip(interval.index(1).f64()) {
        line += &format!(" ci=[{low:.6},{high:.6}]");
    }
    let baseline = report.at("baseline_ref.primary_metric.final").f64();
    if let Some((baseline, subject)) = baseline.zip(metric.get("final").f64()) {
        line += &format!(" ppl={baseline:.4}->{subject:.4}");
    }
    let failed: Vec<&str> =
        gates.iter().filter(|gate| gate.passed == Some(false)).map(|gate| gate.name).collect();
    if !failed.is_empty() {
        line += &format!(" failed: {}", failed.join(", "));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_guard_or_a_tail_that_warns_passes_with_a_warning() {
        let report = |status: &str, tail: bool| {
            json!({
                "meta": {"profile": "ci"},
                "validation": {"invariants_pass": status != "fail", "primary_metric_tail_acceptable": true},
                "invariants": {"evaluated": true, "status": status, "failures": []},
                "primary_metric_tail": {"evaluated": true, "warned": tail, "stats": {"q95": 0.1},
                    "policy": {"quantile_max": 0.2}},
            })
        };
        let found = |status, tail, flag| {
            let gates = gates(&report(status, tail));
            gates.iter().find(|gate| gate.flag == flag).map(|gate| (gate.passed, gate.warned))
        };
        assert_eq!(found("pass", false, "invariants_pass"), Some((Some(true), false)));
        assert_eq!(found("warn", false, "invariants_pass"), Some((Some(true), true)));
        assert_eq!(found("fail", false, "invariants_pass"), Some((Some(false), false)));
        assert_eq!(found("pass", false, TAIL), Some((Some(true), false)));
        assert_eq!(found("pass", true, TAIL), Some((Some(true), true)));
    }
}
