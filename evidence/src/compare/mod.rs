//! Two run reports in, one evaluation report out (`spec/report.md` sections 2 and 3).
//!
//! Neither side is trusted: the reports come out of containers. Every number that is derived from the raw windows
//! is derived again here, and what a report says about itself must agree with it.

use crate::error::Error;
use crate::manifest::ExecutionMode;
use crate::policy::{Profile, Tier};
use crate::run_report::RunReport;
use serde_json::Value;

/// What only the launcher knows about a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareContext {
    /// How strictly it is judged.
    pub profile: Profile,
    /// How far the subject may fall behind.
    pub tier: Tier,
    /// The user's name of the baseline checkpoint.
    pub baseline_model_id: String,
    /// The user's name of the subject checkpoint.
    pub subject_model_id: String,
    /// SHA-256 (hex) over the sorted file names and file digests of the baseline checkpoint; none when the baseline
    /// was measured elsewhere (`--baseline-report`).
    pub baseline_checkpoint_sha256: Option<String>,
    /// The same for the subject.
    pub subject_checkpoint_sha256: Option<String>,
    /// Path of the baseline's run report, as recorded.
    pub baseline_report_path: String,
    /// Path of the subject's run report, as recorded.
    pub subject_report_path: String,
    /// SHA-256 (hex) of the baseline run report's bytes.
    pub baseline_report_sha256: String,
    /// SHA-256 (hex) of the subject run report's bytes.
    pub subject_report_sha256: String,
    /// Container or host.
    pub execution_mode: ExecutionMode,
    /// Time of the comparison, UTC ISO-8601.
    pub generated_at: String,
    /// Seed of the bootstrap before [`crate::policy::PAIRED_SEED_OFFSET`] is added: `eval.bootstrap.seed`, else the
    /// dataset's seed.
    pub bootstrap_seed: u64,
    /// Replicates, where a preset asks for another number than the profile's.
    pub replicates: Option<usize>,
    /// Windows asked for (preview, final).
    pub requested_windows: (usize, usize),
    /// `--edit-label`; otherwise `noop` for equal checkpoint digests and `custom` for different or unknown ones.
    pub edit_label: Option<String>,
    /// Path of the subject's `events.jsonl`, as recorded; may be empty.
    pub events_path: String,
}

/// Compares `subject` with `baseline` and returns the evaluation report.
///
/// An error means that the reports contradict themselves or each other, not that the subject is bad: a bad subject
/// gives a report whose gates are false ([`crate::gates::passed`]).
pub fn compare(baseline: &RunReport, subject: &RunReport, context: &CompareContext) -> Result<Value, Error> {
    let _ = (baseline, subject, context);
    Err(Error::Unsupported("not yet".to_owned()))
}

/// The bytes of `evaluation.report.json`.
pub fn to_bytes(report: &Value) -> Vec<u8> {
    serde_json::to_vec(report).unwrap_or_default()
}
