//! The guards, one by one.

use super::{ABSENT, FAIL, MONITORED, Mark, PASS, SKIPPED, WARN, at, flag, mark, number, text};
use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
pub(super) struct GuardView {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) mark: Mark,
    pub(super) decision: String,
    pub(super) facts: Vec<String>,
    pub(super) problems: Vec<String>,
    pub(super) more: usize,
}

pub(super) fn guards(report: &Value) -> Vec<GuardView> {
    [
        ("invariants", "Invariants", "structure, vocabulary and tied weights are those of the baseline"),
        ("spectral", "Spectral", "the weights’ singular values stay in bounds"),
        ("rmt", "RMT", "random-matrix edge of the activations stays in bounds"),
        ("variance", "Variance", "whether equalising variance would have helped"),
    ]
    .into_iter()
    .map(|(id, name, what)| guard(report, id, name, what))
    .collect()
}

pub(super) fn guard(report: &Value, id: &'static str, name: &'static str, what: &'static str) -> GuardView {
    const SHOWN: usize = 8;
    let block = at(report, id);
    let skipped = flag(block, "evaluated") == Some(false);
    let stated = |name: &str| at(report, "validation").get(name).and_then(Value::as_bool);
    let mark = match id {
        _ if block.as_object().is_none_or(|b| b.is_empty()) => ABSENT,
        _ if skipped => SKIPPED,
        "invariants" => match at(block, "status").as_str() {
            Some("pass") => PASS,
            Some("warn" | "warning") => WARN,
            Some("fail" | "error") => FAIL,
            _ => ABSENT,
        },
        "spectral" => mark(flag(block, "passed").or_else(|| stated("spectral_stable"))),
        "rmt" => mark(flag(block, "stable").or_else(|| flag(block, "passed"))),
        _ if flag(block, "passed") == Some(false) => FAIL,
        _ if flag(block, "monitor_only") == Some(true) || flag(block, "enabled") == Some(false) => MONITORED,
        _ => mark(flag(block, "passed").or_else(|| flag(block, "predictive_gate.passed"))),
    };
    let mut facts = Vec::new();
    let mut counted = |path: &str, words: &str| {
        if let Some(n) = number(block, path) {
            facts.push(format!("{} {words}", text::whole(n)));
        }
    };
    match id {
        _ if skipped => {}
        "invariants" => {
            counted("summary.checks_performed", "checks");
            counted("summary.violations_found", "violations");
            counted("summary.fatal_violations", "fatal");
            counted("summary.warning_violations", "warnings");
        }
        "spectral" => {
            counted("summary.modules_checked", "modules checked");
            counted("caps_applied", "caps applied");
            if let Some(x) = number(block, "summary.max_spectral_norm") {
                facts.push(format!("largest norm {}", text::significant(x, 4)));
            }
        }
        "rmt" => {
            if let Some(families) = at(block, "families").as_object() {
                facts.push(format!("{} families", families.len()));
            }
            if let Some(x) = number(block, "max_edge_ratio") {
                facts.push(format!("largest edge ratio {}", text::ratio(x)));
            }
        }
        _ => {
            if let Some(enabled) = flag(block, "enabled") {
                facts.push(if enabled { "correction enabled" } else { "correction not applied" }.into());
            }
            if let Some(x) = number(block, "gain") {
                facts.push(format!("gain {}", text::significant(x, 3)));
            }
            if let Some(reason) = at(block, "predictive_gate.reason").as_str() {
                facts.push(format!("predictive gate: {}", text::label(reason)));
            }
        }
    }
    if skipped && let Some(reason) = ["skip_reason", "reason"].iter().find_map(|n| at(block, n).as_str()) {
        facts.push(text::label(reason));
    }
    let problems: Vec<&Value> = ["failures", "violations", "epsilon_violations"]
        .iter()
        .filter_map(|name| at(block, name).as_array())
        .find(|list| !list.is_empty())
        .map(|list| list.iter().collect())
        .unwrap_or_default();
    GuardView {
        id,
        name,
        what,
        mark,
        decision: at(block, "decision").as_str().unwrap_or_default().into(),
        facts,
        more: problems.len().saturating_sub(SHOWN),
        problems: problems.iter().take(SHOWN).map(|p| text::compact("", p)).collect(),
    }
}
