//! Markdown for readers, and its parts, which other formats use. Untrusted text is in code spans only.

use super::escape::markdown as code;
use super::{NOT_VERIFIED, Summary};
use crate::gates::Ended;
use crate::paired::{Window, most_changed};

/// Windows of the table of the most changed ones.
const CHANGED: usize = 5;

/// The summary in Markdown.
pub fn render(summary: &Summary) -> String {
    let mut out = format!("# InvarLock evaluation: {}\n\n{NOT_VERIFIED}\n\n", summary.verdict);
    out += &cautions(summary);
    out += &format!("{}\n", result(summary));
    out += &format!("\n## Gates: {}\n\n{}", summary.gates_counted, gates(summary));
    out += &format!("\n## What was compared\n\n{}", compared(summary));
    out += &changed(summary);
    out
}

/// Facts that make the verdict worthless, and warnings.
pub(super) fn cautions(summary: &Summary) -> String {
    let mut out = String::new();
    if let Some(sentence) = &summary.host_execution {
        out += &format!("> **HOST EXECUTION**: {}\n\n", code(sentence));
    }
    for sentence in &summary.contradictions {
        out += &format!("> **The report contradicts itself**: {}\n\n", code(sentence));
    }
    if let Some(fault) = summary.manifest_fault {
        out += &format!("> **{fault}**, so verification fails.\n\n");
    }
    for warning in &summary.warnings {
        out += &format!("> Warning: {}\n\n", code(warning));
    }
    out
}

/// The ratio or the difference with its interval and limit in one sentence, and a line per failed gate.
pub(super) fn result(summary: &Summary) -> String {
    if let Some(delta) = summary.delta_pp {
        return difference(summary, delta) + &failures(summary);
    }
    let Some(ratio) = summary.ratio else {
        return "The report contains no finite ratio of the subject to the baseline.".to_owned()
            + &failures(summary);
    };
    let mut text = format!("Perplexity ratio of the subject to the baseline: **{ratio:.6}**");
    if let Some([low, high]) = summary.interval {
        text += &format!(" (interval {low:.6} to {high:.6})");
    }
    if let Some(limit) = summary.ratio_limit {
        text += &format!(", limit {limit:.3}");
    }
    text + "." + &failures(summary)
}

/// The difference of accuracies.
fn difference(summary: &Summary, delta: f64) -> String {
    let mut text =
        format!("Accuracy of the subject minus that of the baseline: **{delta:+.2} percentage points**");
    if let Some([low, high]) = summary.interval {
        text += &format!(" (interval {low:+.2} to {high:+.2})");
    }
    if let Some(limit) = summary.delta_limit_pp {
        text += &format!(", limit of the lower end {limit:.1}");
    }
    text + "."
}

fn failures(summary: &Summary) -> String {
    let lines = summary.gate_failures.iter().map(|sentence| format!("\n- Failed: {}", code(sentence)));
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

pub(super) fn gates(summary: &Summary) -> String {
    let mut out = "| Gate | Outcome | Measured | Margin |\n|---|---|---|---|\n".to_owned();
    for gate in &summary.gates {
        let sign = match gate.ended {
            Ended::Passed => "✅ ",
            Ended::Warned => "⚠️ ",
            Ended::Failed | Ended::NotRecorded => "❌ ",
            Ended::ShownOnly | Ended::NotEvaluated => "",
        };
        let margin = gate.margin.map_or_else(|| "–".to_owned(), |margin| format!("{margin:+.6}"));
        out += &format!("| {} | {sign}{} | {} | {margin} |\n", gate.name, gate.outcome, code(&gate.detail));
    }
    out
}

pub(super) fn compared(summary: &Summary) -> String {
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "–".to_owned(), code);
    let number = |number: Option<u64>| number.map_or_else(|| "–".to_owned(), |number| number.to_string());
    let value = |number: Option<f64>| number.map_or_else(|| "–".to_owned(), |number| format!("{number:.4}"));
    let (baseline, subject, dataset) = (&summary.baseline, &summary.subject, &summary.dataset);
    let rows = [
        ("Checkpoint", text(&baseline.name), text(&subject.name)),
        ("SHA-256", text(&baseline.sha256), text(&subject.sha256)),
        ("Architecture", text(&baseline.architecture), text(&subject.architecture)),
        ("Parameters", number(baseline.parameters), number(subject.parameters)),
        ("Weights", text(&baseline.dtype), text(&subject.dtype)),
        match summary.delta_pp {
            None => ("Perplexity", value(baseline.perplexity), value(subject.perplexity)),
            Some(_) => ("Accuracy", value(baseline.accuracy), value(subject.accuracy)),
        },
    ];
    let mut out = "| | Baseline | Subject |\n|---|---|---|\n".to_owned();
    for (name, baseline, subject) in rows {
        out += &format!("| {name} | {baseline} | {subject} |\n");
    }
    out += &format!(
        "\n- Dataset: {} (provider {}, split {}), {} + {} {} {} tokens\n- Profile: {}, tier: {}, edit: {}\n- Measured: {}\n- Report: {}\n",
        text(&dataset.name),
        text(&dataset.provider),
        text(&dataset.split),
        number(dataset.preview_windows),
        number(dataset.final_windows),
        if summary.delta_pp.is_some() { "examples with choices of at most" } else { "windows of" },
        number(dataset.seq_len),
        text(&summary.profile),
        text(&summary.tier),
        text(&summary.edit),
        text(&summary.measured_at),
        code(&format!("sha256:{}", summary.report_sha256)),
    );
    out
}

/// The windows of the final arm with the largest change of loss.
fn changed(summary: &Summary) -> String {
    let last = summary.windows.iter().filter(|(arm, _)| *arm == "final");
    let windows: Vec<Window> = last.map(|(_, window)| window.clone()).collect();
    let rows = most_changed(&windows, CHANGED);
    if rows.is_empty() {
        return String::new();
    }
    let mut out =
        "\n## Largest changes of loss\n\n| Window | Baseline | Subject | Change |\n|---|---|---|---|\n"
            .to_owned();
    for (window, change) in rows {
        let (baseline, subject) = (window.baseline.unwrap_or(f64::NAN), window.subject.unwrap_or(f64::NAN));
        out += &format!("| {} | {baseline:.5} | {subject:.5} | {change:+.5} |\n", code(&window.id));
    }
    out
}
