//! Verdicts as JSON: `verify-v1` for reports, `runtime-verify-v1` for a manifest.

use super::about::About;
use super::delegated::DelegatedRunVerdict;
use super::output::{exit_code, overall};
use super::provenance::ProvenanceResult;
use super::reproduce::Reproduction;
use super::summary::Recompute;
use super::{Assurance, Judged, Reason, RuntimeVerdict, Trust, Verdict};
use serde::Serialize;
use serde_json::Value;

/// The verdicts of several reports: the output of `verify --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct VerifyOutput {
    /// Always `verify-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "verify-v1")))]
    format_version: &'static str,
    /// Always `cli`.
    component: &'static str,
    /// When it was verified, UTC, ISO 8601.
    ts: String,
    /// The verdict of all reports together.
    summary: Overall,
    /// The reports.
    evaluation_report: ReportCount,
    /// One result for each report, in the order of the command line.
    results: Vec<ReportResult>,
    /// The error of the Python package that ended the checks of a report; absent if none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Stop>,
    /// The exit code; absent unless `error` is present and the report is not readable.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<Resolution>,
}

/// The verdict of all reports together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct Overall {
    /// Whether every report was accepted.
    ok: bool,
    /// The worst verdict.
    reason: Reason,
}

/// The reports of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct ReportCount {
    /// Their number.
    count: usize,
}

/// The verdict of one report.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct ReportResult {
    /// The path as the user wrote it.
    id: String,
    /// Always `v1`: the version of the report's schema.
    schema_version: &'static str,
    /// Kind of the primary metric in lower case; empty if the report is not readable.
    kind: String,
    /// Whether the report was accepted.
    ok: bool,
    /// The verdict.
    reason: Reason,
    /// Perplexity of the subject divided by that of the baseline.
    ratio_vs_baseline: Option<f64>,
    /// Confidence interval of the ratio, as recorded.
    ci: Option<(f64, f64)>,
    /// Whether the metric follows from the losses of the report; null if that was not computed.
    recompute: Option<Recompute>,
    /// Whether a guard warned.
    guard_warnings_present: bool,
    /// Number of warnings of the guards.
    warning_count: u64,
    /// Results of single checks.
    verification: Verification,
    /// What the evidence is worth.
    assurance: Assurance,
    /// What `assurance` means, in one sentence.
    assurance_meaning: String,
    /// What the evidence is about; null for evidence of another maker.
    about: Option<About>,
    /// What the gates were judged with; null if they were not judged.
    judged: Option<Judged>,
    /// The demanded digests that match.
    matched: Vec<String>,
    /// The sentence about host execution; null for a container run.
    host_execution: Option<String>,
    /// The run of the program of an image that wrote the report; null if this program did not run one.
    delegated: Option<DelegatedRunVerdict>,
    /// What was measured again; null if nothing was.
    reproduction: Option<Reproduction>,
    /// Everything that failed, failed gates last.
    errors: Vec<String>,
    /// The failed gates.
    gate_failures: Vec<String>,
    /// What was recomputed and agrees.
    recomputed: Vec<String>,
    /// What was not recomputed, and why.
    not_recomputed: Vec<String>,
}

/// Results of single checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct Verification {
    /// The check of the runtime manifest.
    runtime_provenance: ProvenanceResult,
}

/// The error that ended the checks of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct Stop {
    /// The error code of the Python package: `E004`, `E602`, `E_GENERIC`, …
    code: &'static str,
    /// The error class of the Python package.
    category: &'static str,
    /// The error in one sentence.
    message: String,
    /// Always false.
    recoverable: bool,
    /// Details of the error.
    context: Value,
}

/// The exit code of the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct Resolution {
    /// The code.
    exit_code: i32,
}

/// The verdicts of several reports as one JSON object; print it with [`super::to_line`]. `timestamp` is UTC ISO 8601.
pub fn envelope(verdicts: &[Verdict], timestamp: &str) -> VerifyOutput {
    let reason = overall(verdicts);
    let stopped = verdicts.iter().find_map(|verdict| Some((verdict, verdict.stopped_by.as_ref()?)));
    let unreadable = stopped.is_some_and(|(verdict, _)| verdict.summary.is_none());
    VerifyOutput {
        format_version: "verify-v1",
        component: "cli",
        ts: timestamp.to_owned(),
        summary: Overall { ok: reason == Reason::Ok, reason },
        evaluation_report: ReportCount { count: verdicts.len() },
        results: verdicts.iter().map(ReportResult::of).collect(),
        error: stopped.map(|(_, stopped)| Stop {
            code: stopped.code,
            category: stopped.category,
            message: stopped.message.clone(),
            recoverable: false,
            context: stopped.context.clone(),
        }),
        resolution: unreadable.then(|| Resolution { exit_code: exit_code(verdicts) }),
    }
}

impl ReportResult {
    fn of(verdict: &Verdict) -> Self {
        let summary = verdict.summary.clone().unwrap_or_default();
        Self {
            id: verdict.path.display().to_string(),
            schema_version: "v1",
            kind: summary.kind.unwrap_or_default().to_lowercase(),
            ok: verdict.ok(),
            reason: verdict.reason,
            ratio_vs_baseline: summary.ratio,
            ci: summary.interval,
            recompute: summary.recompute,
            guard_warnings_present: summary.guard_warnings > 0,
            warning_count: summary.guard_warnings,
            verification: Verification { runtime_provenance: verdict.provenance.clone() },
            assurance: verdict.assurance,
            assurance_meaning: verdict.meaning(),
            about: verdict.about.clone(),
            judged: verdict.judged,
            matched: verdict.matched.clone(),
            host_execution: verdict.host_execution.clone(),
            delegated: verdict.delegated.clone(),
            reproduction: verdict.reproduction.clone(),
            errors: verdict.all_errors().map(str::to_owned).collect(),
            gate_failures: verdict.gate_failures.clone(),
            recomputed: verdict.recomputed.clone(),
            not_recomputed: verdict.not_recomputed.clone(),
        }
    }
}

/// The verdict about one manifest: the output of `advanced runtime-verify --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct RuntimeVerifyOutput {
    /// Always `runtime-verify-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-verify-v1")))]
    format_version: &'static str,
    /// Whether the manifest is that of the report.
    ok: bool,
    /// What failed.
    errors: Vec<String>,
    /// The report's path as the user wrote it.
    report: String,
    /// The manifest's path as the user wrote it.
    manifest: String,
    /// Whether the manifest contains the digest of the report.
    binding_verified: bool,
    /// Whether the image digest was demanded and matches.
    expected_digest_matched: bool,
    /// The image digest in the manifest.
    declared_image_digest: Option<String>,
    /// How far the manifest can be trusted.
    trust_status: Trust,
    /// The sentence about host execution; null for a container run.
    host_execution: Option<String>,
}

impl RuntimeVerdict {
    /// The verdict as JSON; print it with [`super::to_line`].
    pub fn output(&self) -> RuntimeVerifyOutput {
        RuntimeVerifyOutput {
            format_version: "runtime-verify-v1",
            ok: self.ok(),
            errors: self.errors.clone(),
            report: self.report.clone(),
            manifest: self.manifest.clone(),
            binding_verified: self.binding_verified,
            expected_digest_matched: self.expected_digest_matched,
            declared_image_digest: self.declared_image_digest.clone(),
            trust_status: self.trust,
            host_execution: self.host_execution.clone(),
        }
    }
}
