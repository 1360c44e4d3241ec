//! Baseline, subject, settings and dataset.

use super::text::DASH;
use super::{Fact, at, first, number, or_dash, text};
use crate::format::untrusted::Node;
use crate::sentences;
use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
pub(super) struct Compared {
    pub(super) baseline: Vec<Fact>,
    pub(super) subject: Vec<Fact>,
    pub(super) settings: Vec<Fact>,
    pub(super) dataset: Vec<Fact>,
}

impl Compared {
    pub(super) fn new(report: &Value, manifest: &Value) -> Compared {
        let count = |path: &str| or_dash(number(report, path).map(text::whole));
        let tree = |side: &'static str| {
            Node::root("", manifest).at("context.sides").get(side).at("checkpoint.tree_sha256").str()
        };
        let mut baseline = vec![Fact::code("Checkpoint", first(report, &["baseline_ref.model_id"]))];
        let mut subject = vec![Fact::code("Checkpoint", first(report, &["meta.model_id"]))];
        for (facts, side, run) in
            [(&mut baseline, "baseline", "baseline_ref.run_id"), (&mut subject, "subject", "run_id")]
        {
            facts.push(Fact::code("Digest", or_dash(tree(side).map(|digest| format!("sha256:{digest}")))));
            facts.extend(model(Node::root("", report).get("measurements").get(side)));
            facts.push(Fact::code("Run", first(report, &[run])));
            facts.extend(resumed(
                report,
                Node::root("", manifest).at("context.sides").get(side).get("resumed"),
            ));
        }
        subject.push(Fact::new("Edit", first(report, &["edit_name", "edit.name"])));
        baseline.push(Fact::new(
            "Measured",
            match at(manifest, "context.sides.baseline.reused") {
                Value::Bool(true) => "earlier; the measurement was reused",
                Value::Bool(false) => "in this run",
                _ => DASH,
            },
        ));

        let profile = first(report, &["context.profile", "meta.profile", "provenance.window_plan.profile"]);
        let profile = if profile == DASH { first(manifest, &["context.profile"]) } else { profile };
        let mut settings = vec![
            Fact::new("Profile", profile),
            Fact::new("Tier", first(report, &["auto.tier"])),
            Fact::new("Metric", first(report, &["primary_metric.kind"])),
            Fact::new("Adapter", first(report, &["meta.adapter"])),
            Fact::new("Device", first(report, &["meta.device", "telemetry.device"])),
        ];
        if let (Some(label), Some(width)) =
            (at(report, "confidence.label").as_str(), number(report, "confidence.width"))
        {
            let against = number(report, "confidence.threshold")
                .map_or(String::new(), |t| format!(", {} counts as narrow", text::significant(t, 2)));
            settings
                .push(Fact::new("Confidence", format!("{label} (CI width {}{against})", text::ratio(width))));
        }
        let tokens = number(report, "dataset.hash.total_tokens").or_else(|| {
            Some(
                number(report, "telemetry.preview_total_tokens")?
                    + number(report, "telemetry.final_total_tokens")?,
            )
        });
        let split = first(report, &["dataset.split"]);
        let provider = first(report, &["dataset.provider"]);
        let dataset = vec![
            Fact::code("Name", first(manifest, &["context.plan.content.dataset_files.path"])),
            Fact::new(
                "Provider",
                if split == DASH || split == "None" {
                    provider
                } else {
                    format!("{provider}, split {split}")
                },
            ),
            Fact::new(
                "Windows",
                format!(
                    "{} preview + {} final",
                    count("dataset.windows.preview"),
                    count("dataset.windows.final")
                ),
            ),
            Fact::new("Window length", format!("{} tokens{}", count("dataset.seq_len"), packing(manifest))),
            Fact::new("Tokens", or_dash(tokens.map(text::whole))),
            Fact::new(
                "Paired",
                format!(
                    "{} windows, match {}",
                    count("dataset.windows.stats.paired_windows"),
                    or_dash(number(report, "dataset.windows.stats.window_match_fraction").map(text::ratio))
                ),
            ),
            Fact::code("Dataset digest", first(report, &["dataset.hash.dataset"])),
            Fact::code("Tokenizer digest", first(report, &["meta.tokenizer_hash", "dataset.tokenizer.hash"])),
        ];
        Compared { baseline, subject, settings, dataset }
    }
}

/// What of a side an interrupted run measured, if it was resumed.
fn resumed(report: &Value, resumed: Node<'_>) -> Option<Fact> {
    let count = |name| resumed.get(name).u64();
    let windows = count("preview")?.saturating_add(count("final")?);
    let all = |arm: &str| number(report, &format!("dataset.windows.{arm}")).unwrap_or_default();
    let of = all("preview") + all("final");
    Some(Fact::new("Resumed", sentences::resumed(windows, of as u64)))
}

/// How the texts of rows lie in windows. The plan leaves out the default.
fn packing(manifest: &Value) -> &'static str {
    match at(manifest, "context.plan.content.dataset.packing").as_str() {
        Some("documents") => "; rows are joined by the end token and cut into full windows",
        _ => "",
    }
}

/// What one side measured: a dash for each fact that the report does not state.
fn model(side: Node<'_>) -> [Fact; 3] {
    let checkpoint = side.get("checkpoint");
    let string = |name| text::string(checkpoint.get(name).value());
    let (weights, computed) = (string("checkpoint_dtype"), string("compute_dtype"));
    let dtype = if computed == DASH || computed == weights {
        weights
    } else {
        format!("{weights}, measured in {computed}")
    };
    let stored = string("weights");
    let dtype = if stored == DASH { dtype } else { format!("{stored} ({dtype})") };
    let inputs = string("quantised_inputs");
    let dtype = if inputs == DASH { dtype } else { format!("{dtype}; {inputs}") };
    [
        Fact::new("Architecture", string("model_type")),
        Fact::new("Parameters", or_dash(side.get("parameter_count").f64().map(text::whole))),
        Fact::new("Weights", dtype),
    ]
}
