//! Re-reading evidence and trusting nothing in it (`spec/verify.md`, `spec/manifest.md` sections 4 to 6).

use crate::policy::{Profile, Tier};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Which provenance is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RuntimeProvenance {
    /// A manifest of a container run that binds the report.
    #[default]
    Container,
    /// Provenance is not checked; the verdict says so.
    Host,
}

/// Whose verdict [`VerifyOptions::upstream_parity`] repeats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpstreamVersion {
    /// 0.8.0.
    V0_8,
    /// 0.12.1 with `--assurance report`.
    #[default]
    V0_12,
}

/// What is demanded of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyOptions {
    /// How strictly it is judged, whatever the report says about itself.
    pub profile: Profile,
    /// The tier demanded; `None` takes the report's own.
    pub tier: Option<Tier>,
    /// Largest difference of a recomputed number.
    pub tolerance: f64,
    /// Container or host.
    pub runtime_provenance: RuntimeProvenance,
    /// The baseline's run report: parity of digests, and the losses the ratio is recomputed from.
    pub baseline: Option<PathBuf>,
    /// `sha256:` and 64 hex digits of the image that must have run.
    pub expected_image_digest: Option<String>,
    /// Upstream's checks and verdict instead of ours.
    pub upstream_parity: bool,
    /// Which upstream.
    pub upstream_version: UpstreamVersion,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        VerifyOptions {
            profile: Profile::Ci,
            tier: None,
            tolerance: 1e-9,
            runtime_provenance: RuntimeProvenance::Container,
            baseline: None,
            expected_image_digest: None,
            upstream_parity: false,
            upstream_version: UpstreamVersion::default(),
        }
    }
}

/// How far the evidence can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Something failed.
    Failed,
    /// The provenance was not asked for (`--runtime-provenance host`).
    Unverified,
    /// The manifest binds the report's bytes; the image it names was not pinned by the verifier.
    ManifestBound,
    /// The manifest binds the report and names the image the verifier pinned.
    ExpectedImageDigestMatched,
}

impl Trust {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Trust::Failed => "failed",
            Trust::Unverified => "unverified",
            Trust::ManifestBound => "manifest_bound",
            Trust::ExpectedImageDigestMatched => "expected_image_digest_matched",
        }
    }
}

/// The kind of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing failed.
    Ok,
    /// The report is readable and fails.
    PolicyFail,
    /// The report is not one.
    Malformed,
}

impl Reason {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Ok => "ok",
            Reason::PolicyFail => "policy_fail",
            Reason::Malformed => "malformed",
        }
    }
}

/// What was found about one report.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The path as given.
    pub path: PathBuf,
    /// The verdict.
    pub reason: Reason,
    /// `ValidationError`, `MetricsError`, ... with its code, where the checks stopped at one.
    pub stopped_by: Option<StoppedBy>,
    /// What failed, each with what, where and why.
    pub errors: Vec<String>,
    /// What was recomputed from raw values and agreed.
    pub recomputed: Vec<String>,
    /// What could not be recomputed, and why.
    pub not_recomputed: Vec<String>,
    /// How far the evidence can be trusted.
    pub trust: Trust,
    /// The report, where it could be read.
    pub report: Option<Value>,
    profile: Profile,
    row: Option<Value>,
}

/// An upstream error class that ends the checks early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoppedBy {
    /// `E004`, `E602`, ..., `E_GENERIC`.
    pub code: &'static str,
    /// Class name (`category` in JSON).
    pub category: &'static str,
    /// Message.
    pub message: String,
    exit: i32,
}

impl Verdict {
    /// Whether nothing failed.
    pub fn ok(&self) -> bool {
        self.reason == Reason::Ok
    }

    /// The exit code of `spec/verify.md` section 6.
    pub fn exit_code(&self) -> i32 {
        let _ = (&self.profile, &self.row);
        match (&self.stopped_by, self.reason) {
            (Some(stopped), _) => stopped.exit,
            (None, Reason::Ok) => 0,
            (None, Reason::PolicyFail) => 1,
            (None, Reason::Malformed) => 2,
        }
    }
}

/// Verifies one report: a file, or a directory that holds `evaluation.report.json`.
pub fn verify_report(path: &Path, options: &VerifyOptions) -> Verdict {
    Verdict {
        path: path.to_owned(),
        reason: Reason::Malformed,
        stopped_by: None,
        errors: vec!["not yet".to_owned()],
        recomputed: Vec::new(),
        not_recomputed: Vec::new(),
        trust: Trust::Failed,
        report: None,
        profile: options.profile,
        row: None,
    }
}

/// The verdicts of several reports as the one JSON object of `spec/verify.md` section 6 (keys sorted when printed with
/// [`to_line`]); `timestamp` is UTC ISO-8601.
pub fn envelope(verdicts: &[Verdict], timestamp: &str) -> Value {
    let _ = (verdicts, timestamp);
    Value::Null
}

/// The exit code of several verdicts: of the first that stopped the checks, else of the worst.
pub fn exit_code(verdicts: &[Verdict]) -> i32 {
    verdicts.iter().map(Verdict::exit_code).max().unwrap_or(2)
}

/// One line of JSON with sorted keys.
pub fn to_line(value: &Value) -> String {
    crate::numerics::digest::python_json(value, ", ", ": ")
}

/// What `advanced runtime-verify` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeVerdict {
    /// The report's path as given.
    pub report: String,
    /// The manifest's path as given.
    pub manifest: String,
    /// What failed, in order.
    pub errors: Vec<String>,
    /// The digest the manifest names.
    pub declared_image_digest: Option<String>,
    /// Whether an expected digest was given and matched.
    pub expected_digest_matched: bool,
    /// Whether the manifest is sound and holds the report's digest.
    pub binding_verified: bool,
    /// How far the evidence can be trusted.
    pub trust: Trust,
}

impl RuntimeVerdict {
    /// Whether nothing failed; the exit code is then 0, else 1.
    pub fn ok(&self) -> bool {
        self.errors.is_empty()
    }

    /// The JSON of `spec/manifest.md` section 5; print it with [`to_line`].
    pub fn to_json(&self) -> Value {
        Value::Null
    }
}

/// `advanced runtime-verify`: the manifest, and that it binds the report.
pub fn runtime_verify(report: &Path, manifest: &Path, expected_image_digest: Option<&str>) -> RuntimeVerdict {
    let _ = expected_image_digest;
    RuntimeVerdict {
        report: report.display().to_string(),
        manifest: manifest.display().to_string(),
        errors: vec!["not yet".to_owned()],
        declared_image_digest: None,
        expected_digest_matched: false,
        binding_verified: false,
        trust: Trust::Failed,
    }
}
