//! Why a report passed or failed, the margin of each gate, and what to do next.
//!
//! The report is untrusted, and nothing is verified here. Strings of the report are printed by the caller, escaped.

use crate::beside::Beside;
use crate::export::{GateSummary, Summary};
use crate::format::untrusted::Node;
use crate::gates::{self, Ended, Gate};
use crate::policy::{Profile, Tier};
use crate::visible::plain;
use serde::Serialize;
use serde_json::Value;

/// A report, explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Explanation {
    /// The report in short.
    #[serde(flatten)]
    pub summary: Summary,
    /// Why the verdict is what it is: one sentence per reason.
    pub reasons: Vec<String>,
    /// What to do next.
    pub next: Vec<String>,
}

impl Explanation {
    /// Explains a report and the manifest beside it.
    pub fn new(report: &Value, beside: Beside<'_>, report_sha256: &str) -> Self {
        let summary = Summary::new(report, beside, report_sha256);
        let gates = gates::gates(report);
        let next = next_steps(report, &summary, &gates, beside);
        Explanation { reasons: reasons(&summary, &gates), next, summary }
    }

    /// One line per gate: its outcome, name, detail and margin.
    pub fn gate_lines(&self) -> impl Iterator<Item = String> {
        self.summary.gates.iter().map(|gate| {
            let margin = margin(gate).map_or(String::new(), |margin| format!("; {margin}"));
            format!("{:<4}  {:<31} {}{margin}", mark(gate.ended), gate.name, gate.detail)
        })
    }
}

/// The mark that `evaluate` prints before a gate.
fn mark(outcome: Ended) -> &'static str {
    match outcome {
        Ended::Passed => "pass",
        Ended::Warned => "warn",
        Ended::Failed => "FAIL",
        Ended::ShownOnly | Ended::NotEvaluated | Ended::NotRecorded => "  – ",
    }
}

/// The margin of a gate in words; none if it has none.
fn margin(gate: &GateSummary) -> Option<String> {
    let margin = gate.margin?;
    Some(if margin < 0.0 {
        format!("beyond the limit by {:.6}", -margin)
    } else {
        format!("margin {margin:.6}")
    })
}

fn reasons(summary: &Summary, gates: &[Gate]) -> Vec<String> {
    let contradictions = summary.contradictions.iter();
    let mut reasons: Vec<String> =
        contradictions.map(|sentence| format!("The report contradicts itself: {sentence}")).collect();
    reasons.extend_from_slice(&summary.gate_failures);
    if let Some(first) = gates.first()
        && reasons.is_empty()
        && summary.verdict == "PASS"
    {
        reasons.push(plain(&first.sentence()));
        reasons.push(format!("No gate failed: {}", summary.gates_counted));
    }
    let missing = gates.iter().filter(|gate| gate.outcome == Ended::NotRecorded);
    reasons.extend(missing.map(|gate| format!("{}: the report does not state the outcome", gate.name)));
    if let (Some([low, high]), Some(limit)) = (summary.interval, summary.ratio_limit)
        && low <= limit
        && limit < high
    {
        reasons.push(format!(
            "The confidence interval {low:.6} to {high:.6} contains the limit {limit:.3}: another measurement could decide otherwise"
        ));
    }
    reasons
}

fn next_steps(report: &Value, summary: &Summary, gates: &[Gate], beside: Beside<'_>) -> Vec<String> {
    let mut next: Vec<String> = Vec::new();
    let failed = |gate: &&Gate| matches!(gate.outcome, Ended::Failed | Ended::Warned);
    gates.iter().filter(failed).for_each(|gate| next.extend(advice(gate, report, summary)));
    match beside {
        Beside::Missing => {
            next.push("Put runtime.manifest.json of the same evaluation beside the report, or evaluate again: without it, verification fails".to_owned());
        }
        Beside::OfAnotherReport => {
            next.push("Get the report and runtime.manifest.json again from the one who evaluated: the manifest beside the report binds other bytes, so one of the two was replaced or changed".to_owned());
        }
        Beside::OfThisReport(_) if summary.verdict == "PASS" => {
            next.push(match summary.profile.as_deref().and_then(|name| name.parse::<Profile>().ok()) {
                Some(profile) if !profile.gated() => format!("Evaluate with --profile ci before a release: {profile} decides on the ratio and the invariants only"),
                _ => "Verify the evidence on a machine that you trust: invarlock verify".to_owned(),
            });
        }
        Beside::OfThisReport(_) => {}
    }
    if summary.host_execution.is_some() {
        next.push("Evaluate again in containers: verification refuses host execution by default".to_owned());
    }
    next
}

/// What to do about a gate that failed or warned.
fn advice(gate: &Gate, report: &Value, summary: &Summary) -> Vec<String> {
    let text = match gate.flag {
        "primary_metric_acceptable" => return ratio_advice(report, summary),
        "preview_final_drift_acceptable" => {
            "The two arms are different kinds of text: shuffle the dataset, or use texts of one kind. This is not a fault of the subject"
        }
        "invariants_pass" => {
            "Compare config.json and the tensors of the subject with those of the baseline: structure, vocabulary, weight tying, NaN and infinite weights"
        }
        gates::TAIL => {
            "Read the windows with the largest change of loss: report html shows them, report export --format csv lists all"
        }
        "guard_overhead_acceptable" => {
            "Find the guard that changes the perplexity: evaluate with one guard at a time"
        }
        "spectral_stable" | "rmt_stable" => {
            "Find the layers that the guard names on the page (report html), and change them less"
        }
        _ => return Vec::new(),
    };
    vec![text.to_owned()]
}

/// About the ratio or the difference, the tokens, or both.
fn ratio_advice(report: &Value, summary: &Summary) -> Vec<String> {
    let mut next = Vec::new();
    if let (Some([low, high]), Some(limit)) = (summary.interval, summary.delta_limit_pp)
        && low < limit
    {
        next.push(
            "Change the model less (more bits, less pruning, longer training) and evaluate again".to_owned(),
        );
        if high >= 0.0 {
            next.push(
                "Measure more examples: the interval contains 0, and more examples make it narrower"
                    .to_owned(),
            );
        }
    }
    if let (Some(ratio), Some(limit)) = (summary.ratio, summary.ratio_limit)
        && ratio > limit
    {
        next.push(
            "Change the model less (more bits, less pruning, longer training) and evaluate again".to_owned(),
        );
        let accepting = Tier::ALL.into_iter().find(|tier| ratio <= tier.ratio_gate());
        next.push(match accepting {
            Some(tier) => format!(
                "If a ratio of {ratio:.3} is acceptable to you, decide so by --tier {tier} (limit {:.3})",
                tier.ratio_gate()
            ),
            None => format!("No tier accepts a ratio of {ratio:.3}"),
        });
    }
    let tokens = gates::tokens(Node::root("", report));
    if tokens.is_some_and(|tokens| !tokens.enough) && gates::profile(report).gated() {
        next.push("Measure more tokens: longer windows (seq_len of the preset) or longer texts".to_owned());
    }
    next
}
