//! What an evaluation report says passed, failed or was not evaluated: for the console and the page.

use crate::policy::Profile;
use serde_json::{Map, Value, json};

/// One gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Name for people, upstream's console label where it has one.
    pub name: &'static str,
    /// Its flag in `validation`.
    pub flag: &'static str,
    /// `None`: not evaluated or not decided on; neither passed nor failed.
    pub passed: Option<bool>,
    /// One line: the numbers, or why it was not evaluated.
    pub detail: String,
}

/// The flags of `validation` that decide in a profile, where what they judge was evaluated.
///
/// A handful of windows drifts by chance and has no tail: the profile dev decides on the ratio and the invariants alone.
pub fn deciding(profile: Profile) -> &'static [&'static str] {
    const ALL: [&str; 7] = [
        "primary_metric_acceptable",
        "invariants_pass",
        "preview_final_drift_acceptable",
        "primary_metric_tail_acceptable",
        "spectral_stable",
        "rmt_stable",
        "guard_overhead_acceptable",
    ];
    if profile.gated() { &ALL } else { &ALL[..2] }
}

/// Whether a flag of `validation` decides in a profile.
pub fn decides(profile: Profile, flag: &str) -> bool {
    deciding(profile).contains(&flag)
}

/// Whether every deciding flag of a `validation` block is true.
pub(crate) fn all_true(profile: Profile, validation: &Map<String, Value>) -> bool {
    validation.iter().all(|(flag, value)| !decides(profile, flag) || *value == json!(true))
}

/// The profile a report says it was made for; the gates of an unknown one all decide.
pub fn profile(report: &Value) -> Profile {
    report["meta"]["profile"].as_str().and_then(|name| name.parse().ok()).unwrap_or(Profile::Ci)
}

/// The gates of a report, in the order people read them. It repeats the report; it verifies nothing.
pub fn gates(report: &Value) -> Vec<Gate> {
    let validation = &report["validation"];
    let profile = profile(report);
    let flag = |name: &str| validation[name].as_bool().filter(|_| decides(profile, name));
    let metric = &report["primary_metric"];
    let limit = &report["resolved_policy"]["metrics"]["pm_ratio"];
    let gate_limit =
        number(&limit["ratio_limit_base"]).zip(number(&limit["hysteresis_ratio"])).map(|(a, b)| a + b);
    let mut gates = vec![Gate {
        name: "Primary Metric Acceptable",
        flag: "primary_metric_acceptable",
        passed: flag("primary_metric_acceptable"),
        detail: match (number(&metric["ratio_vs_baseline"]), gate_limit) {
            (Some(ratio), Some(limit)) => format!("perplexity ratio {ratio:.6}, limit {limit:.3}"),
            (Some(ratio), None) => format!("perplexity ratio {ratio:.6}"),
            _ => "no finite perplexity ratio".to_owned(),
        },
    }];
    let drift = number(&metric["final"]).zip(number(&metric["preview"])).map(|(last, first)| last / first);
    let band = &metric["drift_band"];
    gates.push(Gate {
        name: "Preview Final Drift Acceptable",
        flag: "preview_final_drift_acceptable",
        passed: flag("preview_final_drift_acceptable"),
        detail: match (drift, number(&band["min"]), number(&band["max"])) {
            (Some(drift), Some(low), Some(high)) => {
                format!("final/preview {drift:.6}, band {low:.2} to {high:.2}")
            }
            (Some(drift), _, _) => format!("final/preview {drift:.6}"),
            _ => "no preview or final perplexity".to_owned(),
        },
    });
    let invariants = &report["invariants"];
    gates.push(Gate {
        name: "Invariants Pass",
        flag: "invariants_pass",
        passed: evaluated(invariants).then(|| flag("invariants_pass")).flatten(),
        detail: match invariants["failures"].as_array() {
            Some(failures) if failures.is_empty() => {
                let checks = invariants["summary"]["checks_performed"].as_u64().unwrap_or_default();
                format!("{checks} checks, none differs")
            }
            Some(failures) => failures
                .iter()
                .filter_map(|failure| failure["message"].as_str().or_else(|| failure["check"].as_str()))
                .collect::<Vec<_>>()
                .join("; "),
            None => not_evaluated(invariants),
        },
    });
    for (name, key, block) in
        [("Spectral Stable", "spectral_stable", "spectral"), ("Rmt Stable", "rmt_stable", "rmt")]
    {
        let block = &report[block];
        let evaluated = evaluated(block);
        gates.push(Gate {
            name,
            flag: key,
            passed: evaluated.then(|| flag(key)).flatten(),
            detail: if evaluated { "evaluated".to_owned() } else { not_evaluated(block) },
        });
    }
    let overhead = &report["guard_overhead"];
    let measured = overhead["evaluated"].as_bool() == Some(true);
    gates.push(Gate {
        name: "Guard Overhead Acceptable",
        flag: "guard_overhead_acceptable",
        passed: measured.then(|| flag("guard_overhead_acceptable")).flatten(),
        detail: match number(&overhead["overhead_ratio"]) {
            Some(ratio) if measured => format!("guarded/bare perplexity {ratio:.6}"),
            _ => not_evaluated(overhead),
        },
    });
    let tail = &report["primary_metric_tail"];
    let judged = tail["evaluated"].as_bool() == Some(true);
    gates.push(Gate {
        name: "Primary Metric Tail Acceptable",
        flag: "primary_metric_tail_acceptable",
        passed: judged.then(|| flag("primary_metric_tail_acceptable")).flatten(),
        detail: match (number(&tail["stats"]["q95"]), number(&tail["policy"]["quantile_max"])) {
            (Some(q95), Some(limit)) if judged => {
                let warned =
                    if tail["warned"].as_bool() == Some(true) { ": above it, a warning" } else { "" };
                format!("95th percentile of the window differences {q95:.6}, limit {limit:.2}{warned}")
            }
            _ => not_evaluated(tail),
        },
    });
    for gate in gates.iter_mut().filter(|gate| !decides(profile, gate.flag)) {
        if !gate.detail.starts_with(NOT_EVALUATED) {
            gate.detail += &format!("; profile {profile} does not decide on it");
        }
    }
    gates
}

/// How the detail of a gate starts that was not evaluated.
const NOT_EVALUATED: &str = "not evaluated";

/// Whether every evaluated gate passed and the primary metric was evaluated.
pub fn passed(report: &Value) -> bool {
    let gates = gates(report);
    gates.first().is_some_and(|first| first.passed == Some(true))
        && gates.iter().all(|gate| gate.passed != Some(false))
}

/// One line: verdict, ratio with its interval, perplexities, and the gates that failed.
pub fn verdict_line(report: &Value) -> String {
    let metric = &report["primary_metric"];
    let mut line = if passed(report) { "PASS".to_owned() } else { "FAIL".to_owned() };
    if let Some(ratio) = number(&metric["ratio_vs_baseline"]) {
        line += &format!(" ratio={ratio:.6}");
    }
    if let (Some(low), Some(high)) = (number(&metric["display_ci"][0]), number(&metric["display_ci"][1])) {
        line += &format!(" ci=[{low:.6},{high:.6}]");
    }
    let baseline = number(&report["baseline_ref"]["primary_metric"]["final"]);
    if let (Some(baseline), Some(subject)) = (baseline, number(&metric["final"])) {
        line += &format!(" ppl={baseline:.4}->{subject:.4}");
    }
    let failed: Vec<&str> =
        gates(report).into_iter().filter(|gate| gate.passed == Some(false)).map(|gate| gate.name).collect();
    if !failed.is_empty() {
        line += &format!(" failed: {}", failed.join(", "));
    }
    line
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite())
}

fn evaluated(block: &Value) -> bool {
    block.is_object() && block["evaluated"].as_bool() != Some(false)
}

fn not_evaluated(block: &Value) -> String {
    let reason = block["reason"].as_str().or_else(|| block["skip_reason"].as_str());
    reason.map_or_else(|| NOT_EVALUATED.to_owned(), |reason| format!("{NOT_EVALUATED}: {reason}"))
}
