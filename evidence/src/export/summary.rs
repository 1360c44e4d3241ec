//! What the exports show of a report. A member that is missing or of another type is `None`. Every text is visible and short
//! ([`crate::visible`]), and the number of texts is limited.

use crate::beside::Beside;
use crate::format::untrusted::Node;
use crate::gates::{self, Ended, Gate};
use crate::host_execution;
use crate::html::contradictions_of;
use crate::paired::{self, Window};
use crate::visible::plain;
use crate::window_texts::WindowTexts;
use serde::Serialize;
use serde_json::Value;

/// Warnings that are kept.
const MAX_WARNINGS: usize = 20;

/// A report and the facts of its manifest, for exports.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Summary {
    /// `PASS`, `FAIL` (also where the report contradicts itself), or `NO VERDICT` where the report does not state the outcome of a gate.
    pub verdict: &'static str,
    /// Counts of the outcomes: `4 passed, 3 not evaluated`.
    pub gates_counted: String,
    /// Identifier of the report.
    pub run_id: Option<String>,
    /// The profile that it was made with.
    pub profile: Option<String>,
    /// The tier.
    pub tier: Option<String>,
    /// Kind of the primary metric.
    pub metric: Option<String>,
    /// The user's label of the edit.
    pub edit: Option<String>,
    /// When it was measured, UTC.
    pub measured_at: Option<String>,
    /// The metric of the subject divided by that of the baseline.
    pub ratio: Option<f64>,
    /// Confidence interval of the ratio; of an accuracy, of the difference.
    pub interval: Option<[f64; 2]>,
    /// Largest ratio that is accepted; none of an accuracy.
    pub ratio_limit: Option<f64>,
    /// Accuracy of the subject minus that of the baseline, percentage points; none of other metrics.
    pub delta_pp: Option<f64>,
    /// The least that is accepted of the lower end of its interval, percentage points.
    pub delta_limit_pp: Option<f64>,
    /// Perplexity of the subject's final arm divided by that of its preview arm; of an accuracy, their difference.
    pub drift: Option<f64>,
    /// The baseline.
    pub baseline: ModelSummary,
    /// The subject.
    pub subject: ModelSummary,
    /// The dataset.
    pub dataset: DatasetSummary,
    /// The gates, in the order of the terminal.
    pub gates: Vec<GateSummary>,
    /// A sentence for each failed gate, as in the terminal.
    pub gate_failures: Vec<String>,
    /// Flags of the report that do not follow from its own numbers, in sentences; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contradictions: Vec<String>,
    /// What decides no gate.
    pub warnings: Vec<String>,
    /// The sentence about host execution.
    pub host_execution: Option<String>,
    /// What is wrong with the manifest beside the report; none if it is that of the report.
    pub manifest_fault: Option<&'static str>,
    /// SHA-256 of the report's bytes, hexadecimal.
    pub report_sha256: String,
    /// The paired windows of both arms.
    #[serde(skip)]
    pub(super) windows: Vec<(&'static str, Window)>,
    /// Texts of the final windows.
    #[serde(skip)]
    pub(super) texts: WindowTexts,
}

/// One side.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ModelSummary {
    /// As the user named it.
    pub name: Option<String>,
    /// SHA-256 over names and digests of its files, from the manifest.
    pub sha256: Option<String>,
    /// Model type.
    pub architecture: Option<String>,
    /// Number of parameters.
    pub parameters: Option<u64>,
    /// Type of the stored weights.
    pub dtype: Option<String>,
    /// Perplexity of the final arm; none of an accuracy.
    pub perplexity: Option<f64>,
    /// Accuracy of the final arm; none of other metrics.
    pub accuracy: Option<f64>,
}

/// The dataset.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct DatasetSummary {
    /// As the user named it, from the manifest.
    pub name: Option<String>,
    /// The provider.
    pub provider: Option<String>,
    /// The split.
    pub split: Option<String>,
    /// SHA-256 over names and digests of its files, from the manifest.
    pub sha256: Option<String>,
    /// Tokens per window.
    pub seq_len: Option<u64>,
    /// Windows of the preview arm.
    pub preview_windows: Option<u64>,
    /// Windows of the final arm.
    pub final_windows: Option<u64>,
}

/// One gate.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct GateSummary {
    /// Its label.
    pub name: &'static str,
    /// Its flag in the report.
    pub flag: &'static str,
    /// How it ended, in words.
    pub outcome: &'static str,
    /// The numbers, or why it was not evaluated.
    pub detail: String,
    /// The number that was compared with the limit.
    pub value: Option<f64>,
    /// The least that is accepted.
    pub least: Option<f64>,
    /// The most that is accepted.
    pub most: Option<f64>,
    /// The distance to the nearest limit; negative if the number is not accepted.
    pub margin: Option<f64>,
    #[serde(skip)]
    pub(crate) ended: Ended,
}

impl GateSummary {
    fn new(gate: &Gate) -> Self {
        Self {
            name: gate.name,
            flag: gate.flag,
            outcome: gate.outcome.words(),
            detail: plain(&gate.detail),
            value: gate.measured.map(|measured| measured.value),
            least: gate.measured.and_then(|measured| measured.least),
            most: gate.measured.and_then(|measured| measured.most),
            margin: gate.measured.map(gates::Measured::margin),
            ended: gate.outcome,
        }
    }
}

fn owned(node: Node<'_>) -> Option<String> {
    node.str().filter(|text| !text.trim().is_empty()).map(plain)
}

impl ModelSummary {
    fn new(report: Node<'_>, manifest: Node<'_>, side: &'static str) -> Self {
        let (name, value) = match side {
            "baseline" => ("baseline_ref.model_id", "baseline_ref.primary_metric.final"),
            _ => ("meta.model_id", "primary_metric.final"),
        };
        let measured = report.get("measurements").get(side);
        Self {
            name: owned(report.at(name)),
            sha256: owned(manifest.at("context.sides").get(side).at("checkpoint.tree_sha256")),
            architecture: owned(measured.at("checkpoint.model_type")),
            parameters: measured.get("parameter_count").u64(),
            dtype: owned(measured.at("checkpoint.checkpoint_dtype")),
            perplexity: report.at(value).f64().filter(|_| !gates::is_accuracy(report)),
            accuracy: report.at(value).f64().filter(|_| gates::is_accuracy(report)),
        }
    }
}

impl DatasetSummary {
    fn new(report: Node<'_>, manifest: Node<'_>) -> Self {
        let dataset = report.get("dataset");
        let files = manifest.at("context.plan.content.dataset_files");
        Self {
            name: owned(files.get("path")),
            provider: owned(dataset.get("provider")),
            split: owned(dataset.get("split")),
            sha256: owned(files.get("tree_sha256")),
            seq_len: dataset.get("seq_len").u64(),
            preview_windows: dataset.at("windows.preview").u64(),
            final_windows: dataset.at("windows.final").u64(),
        }
    }
}

impl Summary {
    /// Reads a report, and the manifest beside it if it is that of the report.
    pub fn new(value: &Value, beside: Beside<'_>, report_sha256: &str) -> Self {
        let report = Node::root("", value);
        let manifest = Node::root("", beside.manifest().unwrap_or(&Value::Null));
        let gates = gates::gates(value);
        let metric = report.get("primary_metric");
        let first = |nodes: [Node<'_>; 2]| nodes.into_iter().find_map(owned);
        let (interval, accuracy) = (metric.get("display_ci"), gates::is_accuracy(report));
        let (ratio, drift) = (gates.first(), gates.get(1));
        let arms = ["preview", "final"].into_iter();
        let windows = arms.flat_map(|arm| {
            let paired = paired::arm(report, arm).unwrap_or_default();
            paired.windows.into_iter().map(move |window| (arm, window))
        });
        let contradictions = contradictions_of(value);
        Self {
            verdict: if contradictions.is_empty() { gates::verdict(&gates) } else { "FAIL" },
            gates_counted: gates::counted(gates.iter().map(|gate| gate.outcome)),
            run_id: owned(report.get("run_id")),
            profile: first([report.at("meta.profile"), report.at("context.profile")]),
            tier: owned(report.at("auto.tier")),
            metric: owned(metric.get("kind")),
            edit: owned(report.get("edit_name")),
            measured_at: first([manifest.at("context.finished_at_utc"), report.at("artifacts.generated_at")]),
            ratio: metric.get("ratio_vs_baseline").f64(),
            interval: interval.index(0).f64().zip(interval.index(1).f64()).map(Into::into),
            ratio_limit: ratio.and_then(|gate| gate.measured).and_then(|measured| measured.most),
            delta_pp: metric.get("delta_pp").f64().filter(|_| accuracy),
            delta_limit_pp: gates::accuracy_limit(report).filter(|_| accuracy),
            drift: drift.and_then(|gate| gate.measured).map(|measured| measured.value),
            baseline: ModelSummary::new(report, manifest, "baseline"),
            subject: ModelSummary::new(report, manifest, "subject"),
            dataset: DatasetSummary::new(report, manifest),
            gates: gates.iter().map(GateSummary::new).collect(),
            gate_failures: gates::failures(value).iter().map(|sentence| plain(sentence)).collect(),
            contradictions,
            warnings: report
                .get("warnings")
                .elements()
                .filter_map(|warning| owned(warning.get("message")))
                .take(MAX_WARNINGS)
                .collect(),
            host_execution: host_execution::recorded(value, beside.manifest())
                .map(|sentence| plain(&sentence)),
            manifest_fault: beside.fault(),
            report_sha256: report_sha256.to_owned(),
            windows: windows.collect(),
            texts: WindowTexts::default(),
        }
    }

    /// The same with the texts of the final windows.
    pub fn with_texts(self, texts: WindowTexts) -> Self {
        Self { texts, ..self }
    }
}
