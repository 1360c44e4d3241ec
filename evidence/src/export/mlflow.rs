//! JSON with the arguments of `mlflow.log_metrics`, `mlflow.log_params` and `mlflow.set_tags`.

use super::Summary;
use super::json::ascii;
use crate::gates::Ended;
use crate::visible::plain;
use serde_json::{Map, Value, json};

pub(super) fn render(summary: &Summary) -> String {
    ascii(&json!({"metrics": metrics(summary), "params": params(summary), "tags": tags(summary)}))
}

/// Numbers only. A gate is 1 if it passed, 0 if it failed, and absent otherwise.
fn metrics(summary: &Summary) -> Map<String, Value> {
    let (ratio, delta) = match summary.delta_pp {
        None => (summary.interval, None),
        Some(_) => (None, summary.interval),
    };
    let numbers = [
        ("invarlock.ratio", summary.ratio),
        ("invarlock.ratio_low", ratio.map(|[low, _]| low)),
        ("invarlock.ratio_high", ratio.map(|[_, high]| high)),
        ("invarlock.delta_pp", summary.delta_pp),
        ("invarlock.delta_pp_low", delta.map(|[low, _]| low)),
        ("invarlock.delta_pp_high", delta.map(|[_, high]| high)),
        ("invarlock.delta_pp_limit", summary.delta_limit_pp),
        ("invarlock.ratio_limit", summary.ratio_limit),
        ("invarlock.drift", summary.drift),
        ("invarlock.baseline_perplexity", summary.baseline.perplexity),
        ("invarlock.subject_perplexity", summary.subject.perplexity),
        ("invarlock.baseline_accuracy", summary.baseline.accuracy),
        ("invarlock.subject_accuracy", summary.subject.accuracy),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name.to_owned(), json!(number?))));
    let gates = summary.gates.iter().filter_map(|gate| {
        let passed = match gate.ended {
            Ended::Passed | Ended::Warned => 1,
            Ended::Failed => 0,
            Ended::ShownOnly | Ended::NotEvaluated | Ended::NotRecorded => return None,
        };
        Some((format!("invarlock.gate.{}", gate.flag), json!(passed)))
    });
    numbers.chain(gates).collect()
}

fn params(summary: &Summary) -> Map<String, Value> {
    let (baseline, subject, dataset) = (&summary.baseline, &summary.subject, &summary.dataset);
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    texts([
        ("invarlock.baseline", baseline.name.clone()),
        ("invarlock.baseline_sha256", baseline.sha256.clone()),
        ("invarlock.subject", subject.name.clone()),
        ("invarlock.subject_sha256", subject.sha256.clone()),
        ("invarlock.architecture", subject.architecture.clone()),
        ("invarlock.parameters", number(subject.parameters)),
        ("invarlock.dtype", subject.dtype.clone()),
        ("invarlock.dataset", dataset.name.clone()),
        ("invarlock.dataset_sha256", dataset.sha256.clone()),
        ("invarlock.preview_windows", number(dataset.preview_windows)),
        ("invarlock.final_windows", number(dataset.final_windows)),
        ("invarlock.seq_len", number(dataset.seq_len)),
        ("invarlock.profile", summary.profile.clone()),
        ("invarlock.tier", summary.tier.clone()),
        ("invarlock.edit", summary.edit.clone()),
    ])
}

fn tags(summary: &Summary) -> Map<String, Value> {
    texts([
        ("invarlock.verdict", Some(summary.verdict.to_owned())),
        ("invarlock.gates", Some(summary.gates_counted.clone())),
        ("invarlock.gate_failures", Some(summary.gate_failures.join("; ")).filter(|text| !text.is_empty())),
        ("invarlock.contradictions", Some(summary.contradictions.join(" ")).filter(|text| !text.is_empty())),
        ("invarlock.run_id", summary.run_id.clone()),
        ("invarlock.report_sha256", Some(summary.report_sha256.clone())),
        ("invarlock.measured_at", summary.measured_at.clone()),
        ("invarlock.host_execution", summary.host_execution.clone()),
        ("invarlock.manifest_fault", summary.manifest_fault.map(str::to_owned)),
    ])
}

/// Untrusted texts, which are shorter than the 500 characters that every version of MLflow accepts.
fn texts<const N: usize>(texts: [(&'static str, Option<String>); N]) -> Map<String, Value> {
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), plain(&text?).into())));
    texts.collect()
}
