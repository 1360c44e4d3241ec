//! The result of the check of the runtime manifest: `verification.runtime_provenance` in JSON.

use super::Trust;
use super::upstream::assurance_mode;
use crate::format::untrusted::Node;
use serde::Serialize;

/// The check of the runtime manifest. Evidence that could not be read has `status` and `skipped` only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ProvenanceResult {
    /// The execution mode that the evidence states: `container`, `host`, `unknown`, or another word of the evidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared_mode: Option<String>,
    /// The result.
    pub status: ProvenanceStatus,
    /// Always false: the author of the evidence could have written the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// Whether the check was disabled by `--runtime-provenance host`.
    pub skipped: bool,
    /// Whether strict checks of the Python package fail for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_blocking: Option<bool>,
    /// What failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issues: Option<Vec<Issue>>,
    /// The assurance mode that the evidence states: `off`, or a word of the Python package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assurance_mode: Option<String>,
}

/// The result of the check of the runtime manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProvenanceStatus {
    /// The check was disabled.
    Skipped,
    /// It is the manifest of the report, and a demanded digest matches.
    Matched,
    /// It is the manifest of the report.
    ManifestBound,
    /// It is not the manifest of the report, or nothing could be read.
    Failed,
}

/// A fault of the runtime manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Issue {
    /// The kind of the fault, a word of the Python package.
    code: &'static str,
    /// The fault in one sentence.
    message: String,
    /// Always empty.
    details: Empty,
}

/// An object without members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct Empty {}

impl ProvenanceResult {
    /// Of evidence that was not read yet.
    pub(super) fn unread(skipped: bool) -> Self {
        Self {
            declared_mode: None,
            status: if skipped { ProvenanceStatus::Skipped } else { ProvenanceStatus::Failed },
            verified: None,
            skipped,
            strict_blocking: None,
            issues: None,
            assurance_mode: None,
        }
    }
}

impl Issue {
    /// A fault.
    pub(super) fn new(code: &'static str, message: &str) -> Self {
        Self { code, message: message.to_owned(), details: Empty {} }
    }
}

/// The check of evidence of another maker.
pub(super) fn of_foreign(
    report: Node<'_>,
    issues: &[(&'static str, String)],
    verified: bool,
    skipped: bool,
    trust: Trust,
) -> ProvenanceResult {
    let context = report.get("context");
    let declared = [
        context.at("runtime.execution_mode"),
        context.at("runtime.runtime_provenance_declared"),
        context.get("execution_mode"),
        report.at("provenance.runtime.execution_mode"),
        report.at("provenance.execution_mode"),
        report.at("meta.execution_mode"),
    ]
    .into_iter()
    .filter_map(Node::str)
    .map(|mode| mode.trim().to_lowercase())
    .find(|mode| !mode.is_empty())
    .unwrap_or_else(|| "unknown".to_owned());
    let status = match (verified, skipped, trust) {
        (_, true, _) => ProvenanceStatus::Skipped,
        (true, _, Trust::ExpectedImageDigestMatched) => ProvenanceStatus::Matched,
        (true, _, _) => ProvenanceStatus::ManifestBound,
        _ => ProvenanceStatus::Failed,
    };
    ProvenanceResult {
        declared_mode: Some(declared),
        status,
        verified: Some(false),
        skipped,
        strict_blocking: Some(!verified),
        issues: Some(issues.iter().map(|(code, message)| Issue::new(code, message)).collect()),
        assurance_mode: Some(assurance_mode(report)),
    }
}
