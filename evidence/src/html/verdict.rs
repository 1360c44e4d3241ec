//! The verdict with its reason, and contradictions within the report.

use super::gates::{Gate, counted};
use super::metric::{Difference, Metric};
use super::{ABSENT, FAIL, Fact, SKIPPED, Warning, at, flag, in_sentence, listed, or_dash, text};
use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
pub(super) struct Verdict {
    pub(super) class: &'static str,
    pub(super) word: &'static str,
    pub(super) reason: String,
    pub(super) remarks: Vec<String>,
    pub(super) facts: Vec<Fact>,
}

impl Verdict {
    pub(super) fn new(report: &Value, metric: &Metric, gates: &[Gate], contradicted: bool) -> Verdict {
        let failed = gates.iter().any(|g| g.decides && g.mark == FAIL);
        let unknown: Vec<String> =
            gates.iter().filter(|g| g.decides && g.mark == ABSENT).map(|g| in_sentence(&g.name)).collect();
        let skipped: Vec<String> =
            gates.iter().filter(|g| g.mark == SKIPPED).map(|g| in_sentence(&g.name)).collect();

        let (class, word) = if failed || contradicted {
            ("fail", "FAIL")
        } else if !unknown.is_empty() || !at(report, "validation").is_object() {
            ("unknown", "NO VERDICT")
        } else {
            ("pass", "PASS")
        };
        let mut remarks = Vec::new();
        if contradicted {
            remarks.push("The report contradicts itself.".to_owned());
        }
        // The sentences of the terminal and of `--json`.
        remarks.extend(
            crate::gates::failures(report).into_iter().map(|sentence| format!("Failed: {sentence}.")),
        );
        if !unknown.is_empty() {
            remarks.push(format!("The report does not state the outcome of: {}.", listed(&unknown)));
        }
        if !skipped.is_empty() {
            remarks.push(format!("Not evaluated: {}.", listed(&skipped)));
        }
        let mut facts = match &metric.difference {
            Some(difference) => vec![
                Fact::new("Difference", text::points(difference.delta)),
                Fact::new("Limit of the lower end", or_dash(difference.limit.map(text::points))),
            ],
            None => vec![
                Fact::new("Ratio", or_dash(metric.ratio.map(text::ratio))),
                Fact::new("Change", or_dash(metric.ratio.map(text::percent_change))),
                Fact::new("Limit", or_dash(metric.limit.as_ref().map(|l| text::ratio(l.value)))),
            ],
        };
        facts.push(Fact::new("Gates", counted(gates)));
        Verdict { class, word, reason: reason(metric), remarks, facts }
    }
}

/// The verdict in one sentence: the ratio, its interval, and whether it is below the limit.
pub(super) fn reason(metric: &Metric) -> String {
    if let Some(difference) = &metric.difference {
        return difference_reason(metric, difference);
    }
    let Some(ratio) = metric.ratio else {
        return "The report contains no finite ratio of the subject to the baseline.".into();
    };
    let noun = metric.noun().to_lowercase();
    let interval = metric.interval.map_or(String::new(), |(lo, hi)| {
        let level = metric.level.as_ref().map_or(String::new(), |level| format!("{level} "));
        format!(" ({level}CI {} to {})", text::ratio(lo), text::ratio(hi))
    });
    let start = format!("The subject’s {noun} is {} × the baseline’s{interval}", text::ratio(ratio));
    let Some(limit) = &metric.limit else { return format!("{start}.") };
    let shown = text::ratio(limit.value);
    if ratio > limit.value {
        return format!("{start}, above the limit of {shown}.");
    }
    match metric.interval {
        Some((_, hi)) if hi > limit.value => {
            format!("{start}, below the limit of {shown}, though the interval reaches above it.")
        }
        _ => format!("{start}, below the limit of {shown}."),
    }
}

/// The verdict on a difference of accuracies in one sentence.
fn difference_reason(metric: &Metric, difference: &Difference) -> String {
    let start =
        format!("The subject’s accuracy is {} against the baseline’s", text::points(difference.delta));
    let Some((low, high)) = difference.interval else {
        return format!("{start}. The report contains no usable confidence interval.");
    };
    let level = metric.level.as_ref().map_or(String::new(), |level| format!("{level} "));
    let start = format!("{start} ({level}CI {} to {})", text::points(low), text::points(high));
    match difference.limit {
        Some(limit) if low >= limit => {
            format!("{start}; the lower end is at or above the limit of {}.", text::points(limit))
        }
        Some(limit) => format!("{start}; the lower end is below the limit of {}.", text::points(limit)),
        None => format!("{start}."),
    }
}

/// Flags of the report that do not follow from its own numbers.
pub(super) fn contradictions(report: &Value, metric: &Metric) -> Vec<String> {
    let says = |name: &str| at(report, "validation").get(name).and_then(Value::as_bool);
    let mut found = Vec::new();
    if says("primary_metric_acceptable") == Some(true) {
        if let (Some(ratio), Some(limit)) = (metric.ratio, &metric.limit)
            && ratio > limit.value * (1.0 + 1e-9)
            && !metric.tiny_relax
        {
            found.push(format!(
                "The primary metric is marked acceptable, but its ratio {} is above the limit {}.",
                text::ratio(ratio),
                text::ratio(limit.value)
            ));
        }
        if let Some((low, limit)) = metric.difference.as_ref().and_then(Difference::lower_end)
            && low < limit
            && !metric.tiny_relax
        {
            found.push(format!(
                "The primary metric is marked acceptable, but the lower end {} is below the limit {}.",
                text::points(low),
                text::points(limit)
            ));
        }
        if flag(report, "primary_metric.invalid") == Some(true) {
            found.push("The primary metric is marked acceptable and invalid.".into());
        }
        if metric.ratio.is_none() {
            found.push("The primary metric is marked acceptable, but there is no finite ratio.".into());
        }
    }
    if let (Some(ratio), Some(last), Some(baseline)) = (metric.ratio, metric.last, metric.baseline)
        && metric.perplexity
        && baseline > 0.0
        && (ratio - last / baseline).abs() > 1e-6 * ratio.abs().max((last / baseline).abs())
    {
        found.push(format!(
            "The recorded ratio is {}, but subject ÷ baseline is {}.",
            text::significant(ratio, 7),
            text::significant(last / baseline, 7)
        ));
    }
    if let (Some(drift), (lo, hi)) = (metric.drift(), metric.drift_band)
        && metric.perplexity
        && says("preview_final_drift_acceptable") == Some(true)
        && !(lo..=hi).contains(&drift)
        && !metric.tiny_relax
    {
        found.push(format!(
            "The drift is marked acceptable, but {} lies outside {} to {}.",
            text::ratio(drift),
            text::ratio(lo),
            text::ratio(hi)
        ));
    }
    if says("invariants_pass") == Some(true)
        && matches!(at(report, "invariants.status").as_str(), Some("fail" | "error"))
    {
        found.push("The invariants are marked as passed, but their status is a failure.".into());
    }
    for (name, word, member, claim) in [
        ("spectral_stable", "spectral", "spectral.passed", "spectral guard"),
        ("rmt_stable", "rmt", "rmt.stable", "RMT guard"),
    ] {
        let evaluated = flag(at(report, word), "evaluated") != Some(false);
        if evaluated && says(name) == Some(true) && flag(report, member) == Some(false) {
            found.push(format!("The {claim} is marked stable, but its own result says otherwise."));
        }
    }
    found
}

/// What the evaluation warned of.
pub(super) fn stated_warnings(report: &Value) -> Option<Warning> {
    let stated = at(report, "warnings").as_array().map(Vec::as_slice).unwrap_or_default();
    let items: Vec<String> = stated
        .iter()
        .filter_map(|warning| warning.get("message").and_then(Value::as_str))
        .map(capitalised)
        .collect();
    (!items.is_empty()).then(|| Warning {
        class: "caution",
        title: "The evaluation warned".into(),
        text: "These facts decide no gate.".into(),
        items,
    })
}

/// A sentence with a capital letter and a full stop.
fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str())
}

/// Warnings that the report itself states.
pub(super) fn report_warnings(report: &Value) -> Vec<Warning> {
    let mut items = Vec::new();
    let reason = at(report, "primary_metric.degraded_reason");
    for (member, words) in [
        ("primary_metric.invalid", "The primary metric is marked invalid"),
        ("primary_metric.degraded", "The primary metric is marked degraded"),
        ("primary_metric.unstable", "The primary metric is marked unstable (few replicates or tokens)"),
        ("primary_metric.estimated", "The primary metric is estimated, not measured"),
        ("auto.tiny_relax", "Gates were relaxed for a tiny evaluation"),
    ] {
        if flag(report, member) == Some(true) {
            let because = match reason.as_str() {
                Some(reason) if member.ends_with("invalid") || member.ends_with("degraded") => {
                    format!(": {reason}")
                }
                _ => String::new(),
            };
            items.push(format!("{words}{because}."));
        }
    }
    if at(report, "schema_version") != "v1" {
        items.push(format!(
            "The report’s schema version is {}, not v1; members may mean something else.",
            text::compact("", at(report, "schema_version"))
        ));
    }
    if items.is_empty() {
        return Vec::new();
    }
    vec![Warning {
        class: "caution",
        title: "Interpret the numbers with caution".into(),
        text: "The report states:".into(),
        items,
    }]
}
