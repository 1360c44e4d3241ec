//! A Hugging Face model card: YAML front matter with `model-index`, and a short section of Markdown.

use super::escape::yaml;
use super::markdown::{cautions, compared, gates, result};
use super::{NOT_VERIFIED, Summary};

pub(super) fn render(summary: &Summary) -> String {
    format!(
        "---\n{}---\n\n## Evaluation with InvarLock: {}\n\n{}{}\n\n### Gates: {}\n\n{}\n{}\n{NOT_VERIFIED}\n",
        front_matter(summary),
        summary.verdict,
        cautions(summary),
        result(summary),
        summary.gates_counted,
        gates(summary),
        compared(summary),
    )
}

/// The Hub requires a task, a dataset with type and name, and metrics with type and value.
fn front_matter(summary: &Summary) -> String {
    let text = |text: &Option<String>, absent: &str| yaml(text.as_deref().unwrap_or(absent));
    let dataset = &summary.dataset;
    let name = dataset.name.clone().or_else(|| dataset.provider.clone());
    let mut out = format!(
        "model-index:\n- name: {}\n  results:\n  - task:\n      type: text-generation\n    dataset:\n      type: {}\n      name: {}\n",
        text(&summary.subject.name, "unknown"),
        text(&dataset.provider, "unknown"),
        text(&name, "unknown"),
    );
    if let Some(split) = &dataset.split {
        out += &format!("      split: {}\n", yaml(split));
    }
    let accuracy = summary.delta_pp.is_some();
    let metrics = [
        ("perplexity", "Perplexity", summary.subject.perplexity),
        ("perplexity", "Perplexity of the baseline", summary.baseline.perplexity),
        ("perplexity_ratio", "Perplexity ratio to the baseline", summary.ratio.filter(|_| !accuracy)),
        ("accuracy", "Accuracy", summary.subject.accuracy),
        ("accuracy", "Accuracy of the baseline", summary.baseline.accuracy),
        ("accuracy_delta_pp", "Accuracy minus that of the baseline, percentage points", summary.delta_pp),
    ];
    let metrics = metrics.into_iter().filter_map(|(kind, name, value)| Some((kind, name, value?)));
    let rows: String = metrics
        .map(|(kind, name, value)| format!("    - type: {kind}\n      name: {name}\n      value: {value}\n"))
        .collect();
    if rows.is_empty() { format!("{out}    metrics: []\n") } else { format!("{out}    metrics:\n{rows}") }
}
