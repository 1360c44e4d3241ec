//! What `evaluate --json` and `evaluate --dry-run` print.

use crate::denied_calls::DeniedOfSides;
use crate::output::{Resolution, ShownPath};
use invarlock_evidence::format::plan::Plan;
use invarlock_evidence::format::warning::Warning;
use invarlock_evidence::verify::{Assurance, Signer};
use serde::Serialize;

/// The output of `evaluate --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct EvaluateOutput<'a> {
    /// Always `evaluate-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "evaluate-v1")))]
    pub format_version: &'static str,
    /// Whether the subject passed.
    pub ok: bool,
    /// `PASS` or `FAIL`.
    pub verdict: &'static str,
    /// The metric of the subject divided by that of the baseline.
    pub ratio_vs_baseline: f64,
    /// Accuracy of the subject minus that of the baseline, percentage points; absent for other metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_pp: Option<f64>,
    /// Confidence interval of the ratio; of an accuracy, of the difference in percentage points.
    pub display_ci: [f64; 2],
    /// Perplexity or accuracy of the final arm of the baseline.
    pub baseline_final: f64,
    /// Perplexity or accuracy of the final arm of the subject.
    pub subject_final: f64,
    /// The gates, in the order of the terminal.
    pub gates: Vec<GateOutput>,
    /// A sentence for each failed gate.
    pub gate_failures: &'a [String],
    /// Facts that decide no gate.
    pub warnings: &'a [Warning],
    /// What the evidence is worth.
    pub assurance: Assurance,
    /// The keys that signed the evidence.
    pub signers: Option<&'a [Signer]>,
    /// The demanded digests that match.
    pub matched: &'a [String],
    /// The sentence about host execution; null for a container run.
    pub host_execution: Option<&'a str>,
    /// File of the evaluation report.
    pub report: ShownPath<'a>,
    /// File of the runtime manifest.
    pub manifest: ShownPath<'a>,
    /// Denied system calls of both sides.
    pub refused: &'a DeniedOfSides,
    /// Wall time, seconds.
    pub timings_seconds: Timings,
    /// The exit code.
    pub resolution: Resolution,
}

/// One gate.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct GateOutput {
    /// Its name.
    pub name: &'static str,
    /// Whether it passed; null if it was not evaluated, or does not decide.
    pub passed: Option<bool>,
    /// Whether it passed with a warning.
    pub warned: bool,
    /// The numbers, or why it was not evaluated.
    pub detail: String,
}

/// Wall time of an evaluation, seconds.
#[derive(Clone, Copy, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Timings {
    /// Until the baseline was measured.
    pub baseline: f64,
    /// From then until the subject was measured.
    pub subject: f64,
    /// All of it, without the output.
    pub total: f64,
}

/// The output of `evaluate --dry-run`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct DryRunOutput<'a> {
    /// The plan.
    #[serde(flatten)]
    pub plan: Plan,
    /// The warnings of the check.
    pub warnings: &'a [Warning],
}
