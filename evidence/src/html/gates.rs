//! The table of gates: the outcomes of [`crate::gates`] with value and limit.

use super::guards::{GuardView, fact};
use super::metric::Metric;
use super::text::DASH;
use super::{
    ABSENT, FAIL, Mark, PASS, SHOWN, SKIPPED, WARN, at, count_marks, flag, mark, number, or_dash, text,
};
use crate::format::untrusted::Node;
use crate::guards::{Limit, TABLE};
use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
pub(super) struct Gate {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) limit: String,
    pub(super) mark: Mark,
    pub(super) note: String,
    /// Counts towards the verdict.
    pub(super) decides: bool,
    /// A part of the gate above it.
    pub(super) is_part: bool,
}

/// How many gates ended in which way.
pub(super) fn counted(gates: &[Gate]) -> String {
    count_marks(gates.iter().filter(|gate| !gate.is_part).map(|gate| gate.mark))
}

pub(super) fn gates(report: &Value, metric: &Metric, guards: &[GuardView]) -> Vec<Gate> {
    let profile = crate::gates::profile(report);
    let stated = crate::gates::gates(report);
    // The outcomes are those of the terminal. Flags of upstream's later versions are shown as the report states them.
    let says = |flag: &str| match stated.iter().find(|gate| gate.flag == flag) {
        Some(gate) if gate.warned => WARN,
        Some(gate) => mark(gate.passed),
        None => mark(at(report, "validation").get(flag).and_then(Value::as_bool)),
    };
    let gate = |flag: &str, name: &str, value: String, limit: String, outcome: Mark, note: String| {
        let decides = profile.decides(flag) || !stated.iter().any(|gate| gate.flag == flag);
        let outcome = if outcome == ABSENT && !decides { SHOWN } else { outcome };
        Gate { name: name.into(), value, limit, mark: outcome, note, decides, is_part: false }
    };
    let mut gates = Vec::new();

    let tokens = crate::gates::tokens(Node::root("", report));
    let mut note = String::new();
    if says("primary_metric_acceptable") == FAIL
        && metric.ratio.is_some_and(|r| metric.limit.as_ref().is_some_and(|l| r <= l.value))
    {
        note = match &tokens {
            Some(t) if !t.enough => "too few tokens were measured".into(),
            _ => "the ratio is within its limit; the report states no other cause".into(),
        };
    }
    gates.push(gate(
        "primary_metric_acceptable",
        "Primary metric",
        match metric.difference.as_ref().and_then(|difference| difference.interval) {
            Some((low, _)) => format!("lower end {}", text::points(low)),
            None => or_dash(metric.ratio.map(|r| format!("ratio {}", text::ratio(r)))),
        },
        match (&metric.limit, metric.difference.as_ref().and_then(|difference| difference.limit)) {
            (Some(limit), _) => format!("≤ {}", text::ratio(limit.value)),
            (None, Some(limit)) => format!("≥ {}", text::points(limit)),
            (None, None) if metric.kind == "accuracy" => or_dash(
                number(report, "resolved_policy.metrics.accuracy.delta_min_pp")
                    .map(|pp| format!("≥ {} percentage points", text::significant(pp, 2))),
            ),
            (None, None) => DASH.into(),
        },
        says("primary_metric_acceptable"),
        note,
    ));
    if let Some(tokens) = tokens {
        gates.push(Gate {
            name: "Tokens measured".into(),
            value: text::whole(tokens.total),
            limit: format!("≥ {}", text::whole(tokens.least)),
            mark: match (tokens.enough, profile.gated()) {
                (true, _) => PASS,
                (false, true) => FAIL,
                (false, false) => SHOWN,
            },
            note: if profile.gated() {
                "part of the primary metric’s gate; computed by this page".into()
            } else {
                format!("not a gate of the {profile} profile; computed by this page")
            },
            decides: false,
            is_part: true,
        });
    }
    let (lo, hi) = metric.drift_band;
    gates.push(gate(
        "preview_final_drift_acceptable",
        "Preview to final drift",
        or_dash(metric.shown_drift()),
        match &metric.difference {
            Some(_) => or_dash(
                crate::gates::accuracy_band(Node::root("", report))
                    .map(|(lo, hi)| format!("{} to {}", text::points(100.0 * lo), text::points(100.0 * hi))),
            ),
            None if metric.perplexity => format!("{} to {}", text::ratio(lo), text::ratio(hi)),
            None => DASH.into(),
        },
        says("preview_final_drift_acceptable"),
        String::new(),
    ));

    let root = Node::root("", report);
    for guard in &TABLE {
        let Some(guarded) = &guard.gate else { continue };
        let skipped = guards.iter().any(|view| view.id == guard.name && view.mark == SKIPPED);
        let (measured, limit) = (guarded.measured)(guard.block(root));
        gates.push(gate(
            guarded.flag,
            guarded.title,
            or_dash(measured.map(fact)),
            or_dash(limit.map(shown_limit)),
            if skipped { SKIPPED } else { says(guarded.flag) },
            String::new(),
        ));
    }

    let overhead = at(report, "guard_overhead");
    if overhead.as_object().is_some_and(|o| !o.is_empty()) || says("guard_overhead_acceptable") != ABSENT {
        let skipped = flag(overhead, "skipped") == Some(true) || at(overhead, "mode") == "skipped";
        let evaluated = flag(overhead, "evaluated") == Some(true) && !skipped;
        gates.push(gate(
            "guard_overhead_acceptable",
            "Guard overhead",
            or_dash(number(overhead, "overhead_ratio").map(|r| format!("ratio {}", text::ratio(r)))),
            or_dash(number(overhead, "overhead_threshold").map(|t| format!("≤ {}", text::ratio(1.0 + t)))),
            if evaluated { says("guard_overhead_acceptable") } else { SKIPPED },
            at(overhead, "skip_reason").as_str().unwrap_or_default().into(),
        ));
    }
    let tail = at(report, "primary_metric_tail");
    if tail.is_object() || says("primary_metric_tail_acceptable") != ABSENT {
        let q = number(tail, "policy.quantile").unwrap_or(0.95);
        let name =
            format!("q{}", text::significant((q * 1e4).round() / 100.0, 4).trim_end_matches(['0', '.']));
        let stats = tail.get("stats").filter(|stats| stats.get("n").and_then(Value::as_u64) != Some(0));
        let measured = stats.and_then(|stats| stats.get(&name)).and_then(Value::as_f64);
        let stated = says("primary_metric_tail_acceptable");
        let warned = flag(tail, "passed") == Some(false) || flag(tail, "warned") == Some(true);
        let advisory = at(tail, "mode") == "warn";
        gates.push(gate(
            "primary_metric_tail_acceptable",
            "Tail of the windows",
            or_dash(measured.map(|x| format!("Δ {name} {}", text::difference(x)))),
            or_dash(number(tail, "policy.quantile_max").map(|x| format!("≤ {}", text::significant(x, 3)))),
            match stated {
                _ if flag(tail, "evaluated") == Some(false) => SKIPPED,
                PASS if warned => WARN,
                other => other,
            },
            if advisory { "advisory: warns, does not fail".into() } else { String::new() },
        ));
    }
    // Deciding flags of upstream's later versions.
    for (name, words) in
        [("guard_warning_policy_acceptable", "Guard warnings"), ("moe_identity_ok", "Expert identity")]
    {
        let stated = says(name);
        if stated != ABSENT {
            let count = match name {
                "guard_warning_policy_acceptable" => number(report, "guard_warnings.warning_count"),
                _ => None,
            };
            gates.push(gate(
                name,
                words,
                or_dash(count.map(|n| format!("{} warnings", text::whole(n)))),
                DASH.into(),
                stated,
                String::new(),
            ));
        }
    }
    if at(report, "validation.hysteresis_applied") == &Value::Bool(true)
        && let Some(gate) = gates.first_mut()
        && gate.note.is_empty()
    {
        gate.note = "passed only because of the hysteresis".into();
    }
    gates
}

/// A limit of a guard as text.
fn shown_limit(limit: Limit) -> String {
    match limit {
        Limit::NoFailure => "no failure".to_owned(),
        Limit::AtMost(number) => format!("≤ {}", text::whole(number)),
        Limit::Epsilon(epsilon) => format!("ε {}", text::significant(epsilon, 2)),
    }
}
