//! Verification of evidence: reads reports and manifests from disk and trusts nothing in them.
//!
//! `upstream` repeats upstream's checks, `strict` recomputes what follows from raw values, `context` and `observed` check the manifest of
//! a container run.

mod context;
mod observed;
mod open;
mod output;
mod python;
mod read;
mod runtime;
mod schema;
mod strict;
mod upstream;

pub use open::{open_manifest, open_report};
pub use output::{envelope, exit_code, success_line, to_line};
pub use read::{MANIFEST_LIMIT, REPORT_LIMIT, RUN_REPORT_LIMIT, read_evidence};
pub use runtime::{RuntimeOptions, runtime_verify, runtime_verify_bytes, runtime_verify_with};

use crate::format::untrusted::Node;
use crate::host_execution;
use crate::json;
use crate::manifest::FILE_NAME;
use crate::numerics::digest::sha256_hex;
use crate::policy::{Profile, Tier};
use crate::sentences::weaker_profile;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Which provenance is required.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RuntimeProvenance {
    /// A manifest of a container run that binds the report.
    #[default]
    Container,
    /// Provenance is not checked; the verdict records that.
    Host,
}

/// The upstream version whose verdict [`VerifyOptions::upstream_parity`] repeats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpstreamVersion {
    /// 0.8.0.
    V0_8,
    /// 0.12.1 with `--assurance report`.
    #[default]
    V0_12,
}

/// What a report must satisfy.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyOptions {
    /// The profile of the checks, whatever profile the report states.
    pub profile: Profile,
    /// The required tier; `None` accepts the tier of the report.
    pub tier: Option<Tier>,
    /// Largest difference between a recorded and a recomputed number.
    pub tolerance: f64,
    /// Container or host.
    pub runtime_provenance: RuntimeProvenance,
    /// The baseline's run report: for parity of digests, and for the losses from which the ratio is recomputed.
    pub baseline: Option<PathBuf>,
    /// Digest of the image that must have run: `sha256:` and 64 hex digits.
    pub expected_image_digest: Option<String>,
    /// The controls that may be disabled, named as in the manifest's `context.loosened`: `allow_network`, ... No other
    /// control may be disabled.
    pub granted: Vec<String>,
    /// Upstream's checks and verdict only.
    pub upstream_parity: bool,
    /// The version of upstream.
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
            granted: Vec::new(),
            upstream_parity: false,
            upstream_version: UpstreamVersion::default(),
        }
    }
}

/// How far the evidence can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A check failed.
    Failed,
    /// The provenance was not checked (`--runtime-provenance host`).
    Unverified,
    /// The manifest binds the report's bytes; its image was not pinned by the verifier.
    ManifestBound,
    /// The manifest binds the report and names the image that the verifier pinned.
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
    /// The report is well-formed, and a policy or a gate failed. Exit code 1.
    PolicyFail,
    /// The evidence contradicts itself or lacks what it must contain (profiles ci and release). Exit code 3. Upstream calls this
    /// `policy_fail` too, and so does [`VerifyOptions::upstream_parity`].
    Integrity,
    /// The input is not an evaluation report. Exit code 2.
    Malformed,
}

impl Reason {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Ok => "ok",
            Reason::PolicyFail => "policy_fail",
            Reason::Integrity => "integrity",
            Reason::Malformed => "malformed",
        }
    }
}

/// The result of the verification of one report.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The path as supplied.
    pub path: PathBuf,
    /// The verdict.
    pub reason: Reason,
    /// The upstream error that ended the checks early, if any: `ValidationError`, `MetricsError`, ... with its code.
    pub stopped_by: Option<StoppedBy>,
    /// Gates that the subject failed by recomputed numbers: the evidence is valid and the result is negative.
    pub gate_failures: Vec<String>,
    /// Everything else that failed: the evidence is not valid.
    pub errors: Vec<String>,
    /// What was recomputed from raw values and agrees.
    pub recomputed: Vec<String>,
    /// What could not be recomputed, with the reason.
    pub not_recomputed: Vec<String>,
    /// How far the evidence can be trusted.
    pub trust: Trust,
    /// The sentence of [`crate::host_execution`] if report or manifest records host execution; can contain control characters.
    pub host_execution: Option<String>,
    /// The report, if it is readable.
    pub report: Option<Value>,
    /// The result of the runtime provenance (`verification.runtime_provenance` in JSON).
    pub provenance: Value,
    /// Tolerance of the recomputation.
    tolerance: f64,
}

/// An upstream error class that ends the checks early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoppedBy {
    /// `E004`, `E602`, ..., `E_GENERIC`.
    pub code: &'static str,
    /// Name of the class (`category` in JSON).
    pub category: &'static str,
    /// Message.
    pub message: String,
    /// Details (`error.context` in JSON).
    pub context: Value,
    exit: i32,
}

impl Verdict {
    /// Whether nothing failed.
    pub fn ok(&self) -> bool {
        self.reason == Reason::Ok
    }

    /// Everything that failed: first faults of the evidence, then failed gates.
    pub fn all_errors(&self) -> impl Iterator<Item = &str> {
        self.errors.iter().chain(&self.gate_failures).map(String::as_str)
    }

    /// The exit code: 0 if nothing failed, 1 if a check failed, 2 for malformed input; that of upstream's error class if one ended the checks.
    pub fn exit_code(&self) -> i32 {
        match (&self.stopped_by, self.reason) {
            (Some(stopped), _) => stopped.exit,
            (None, Reason::Ok) => 0,
            (None, Reason::PolicyFail) => 1,
            (None, Reason::Malformed) => 2,
            (None, Reason::Integrity) => INTEGRITY,
        }
    }
}

/// What is missing or wrong in the observations of one container. `side` is the value at `path` (`context.sides.<name>`) of a manifest.
pub fn container_faults(path: &str, side: &Value) -> Vec<String> {
    observed::faults(&observed::Side { side: Node::part(path, side), planned: None })
}

/// Exit code for evidence that contradicts itself.
const INTEGRITY: i32 = 3;

/// File name of the report in a directory.
const REPORT_NAME: &str = "evaluation.report.json";

/// Verifies one report: a file, or a directory that contains `evaluation.report.json`.
pub fn verify_report(path: &Path, options: &VerifyOptions) -> Verdict {
    let verdict = Verdict {
        path: path.to_owned(),
        reason: Reason::Malformed,
        stopped_by: None,
        gate_failures: Vec::new(),
        errors: Vec::new(),
        recomputed: Vec::new(),
        not_recomputed: Vec::new(),
        trust: Trust::Failed,
        host_execution: None,
        report: None,
        provenance: Value::Null,
        tolerance: options.tolerance,
    };
    let file = match resolve(path) {
        Ok(file) => file,
        Err(why) => return verdict.stop(Reason::Malformed, input_error(why)),
    };
    let bytes = match read_evidence(&file, REPORT_LIMIT) {
        Ok(bytes) => bytes,
        Err(why) => {
            let why = format!("Report is not readable: {}: {why}", file.display());
            return verdict.stop(Reason::Malformed, input_error(why));
        }
    };
    // Upstream treats unreadable input as a failed report, with exit code 1. By default it is malformed input, with exit code 2.
    let (unreadable, exit) = match options.upstream_parity {
        true => (Reason::PolicyFail, 1),
        false => (Reason::Malformed, 2),
    };
    let generic = |category: &'static str, message: String| StoppedBy {
        code: "E_GENERIC",
        category,
        message: format!("Verification failed: {message}"),
        context: json!({}),
        exit,
    };
    let report = match parse(&bytes, options.upstream_parity) {
        Ok(report) => report,
        Err(why) => {
            let utf8 = std::str::from_utf8(&bytes).is_ok();
            let category = if utf8 { "JSONDecodeError" } else { "UnicodeDecodeError" };
            let reason = if utf8 { Reason::Malformed } else { unreadable };
            return verdict.stop(reason, generic(category, why));
        }
    };
    if !report.is_object() {
        let why = "evaluation report must decode to a JSON object".to_owned();
        return verdict.stop(unreadable, generic("ValueError", why));
    }
    if !options.upstream_parity
        && report.get("evaluation_windows").is_some()
        && report.get("validation").is_none()
    {
        let why = format!(
            "Expected an evaluation report payload, not a run report artifact: {}: it has no `validation`",
            file.display()
        );
        return verdict.stop(Reason::Malformed, input_error(why));
    }
    judge(&file, &bytes, report, options, verdict)
}

fn judge(file: &Path, bytes: &[u8], report: Value, options: &VerifyOptions, mut verdict: Verdict) -> Verdict {
    let (baseline, baseline_json) = match load_baseline(options) {
        Ok(loaded) => loaded,
        Err(why) => return verdict.stop(Reason::Malformed, input_error(why)),
    };
    let runtime_options = RuntimeOptions {
        expected_image_digest: options.expected_image_digest.clone(),
        granted: options.granted.clone(),
        upstream_parity: options.upstream_parity,
    };
    let host = options.runtime_provenance == RuntimeProvenance::Host;
    let (issues, verified, trust) = if host {
        // Only for the sentence about host execution, so an unreadable manifest is no error here.
        let manifest = open_manifest(&file.with_file_name(FILE_NAME)).ok().flatten();
        verdict.host_execution = host_execution::recorded(&report, manifest.as_ref());
        (Vec::new(), false, Trust::Unverified)
    } else {
        let (runtime, mut issues, manifest) = runtime::provenance(file, bytes, &runtime_options);
        verdict.host_execution = host_execution::recorded(&report, Some(&manifest));
        if !options.upstream_parity
            && strict::is_own(Node::root("", &report))
            && runtime.ok()
            && issues.is_empty()
        {
            let faults = context::faults(Node::root("", &report), Node::root("", &manifest));
            issues.extend(faults.into_iter().map(|fault| ("context_invalid", fault)));
        }
        (issues, runtime.ok(), runtime.trust)
    };
    let verified = verified && issues.is_empty() && !host;
    verdict.provenance = output::provenance(Node::root("", &report), &issues, verified, host, trust);

    let digest = baseline_json.as_ref().map(|json| Node::root("", json).at("provenance.provider_digest"));
    let digest = digest.filter(|digest| digest.object().is_some());
    let found = upstream::check(&upstream::Case {
        report: Node::root("", &report),
        profile: options.profile,
        version: options.upstream_version,
        tolerance: options.tolerance,
        baseline_digest: digest,
        provenance_issues: &issues,
        provenance_verified: verified,
    });
    verdict.errors = found.errors;
    verdict.gate_failures = found.gates;
    verdict.not_recomputed = found.notes;
    verdict.stopped_by = found.stopped;
    let mut malformed = found.malformed;

    let unreadable = verdict.stopped_by.as_ref().is_some_and(|stopped| stopped.code == "E601");
    if !options.upstream_parity && !unreadable {
        let sha256 = baseline.as_ref().map(|(_, sha256)| sha256.as_str()).unwrap_or_default();
        let strict =
            strict::check(Node::root("", &report), options, baseline.as_ref().map(|(run, _)| (run, sha256)));
        if let Some(example) = strict.mismatches.first().filter(|_| verdict.stopped_by.is_none()) {
            verdict.stopped_by = options.profile.gated().then(|| StoppedBy {
                code: "E602",
                category: "MetricsError",
                message: "RECOMPUTE-MISMATCH: report values disagree with recomputation".to_owned(),
                context: json!({"example": example}),
                exit: INTEGRITY,
            });
        }
        for error in strict.mismatches.into_iter().chain(strict.failures) {
            if !verdict.errors.contains(&error) {
                verdict.errors.push(error);
            }
        }
        for failure in strict.gates {
            if !verdict.gate_failures.contains(&failure) {
                verdict.gate_failures.push(failure);
            }
        }
        verdict.recomputed = strict.recomputed;
        verdict.not_recomputed.extend(strict.not_recomputed);
        malformed = malformed && verdict.stopped_by.is_none();
    }
    let clean = verdict.errors.is_empty() && verdict.gate_failures.is_empty();
    if !clean
        && !options.upstream_parity
        && verdict.stopped_by.is_none()
        && let Some(made) =
            strict::own_profile(Node::root("", &report)).filter(|made| *made < options.profile)
    {
        // First, because the other failures follow from it.
        verdict.errors.insert(0, weaker_profile(made, options.profile));
    }
    verdict.reason = match (&verdict.stopped_by, clean) {
        (Some(stopped), _) if stopped.category == "ValidationError" => Reason::Malformed,
        (Some(stopped), _) if stopped.exit == INTEGRITY && !options.upstream_parity => Reason::Integrity,
        (Some(_), _) => Reason::PolicyFail,
        (None, true) => Reason::Ok,
        (None, false) if malformed => Reason::Malformed,
        (None, false) => Reason::PolicyFail,
    };
    verdict.trust = if verdict.ok() { trust } else { Trust::Failed };
    verdict.report = Some(report);
    verdict
}

impl Verdict {
    fn stop(mut self, reason: Reason, stopped: StoppedBy) -> Self {
        self.reason = reason;
        self.errors.push(stopped.message.clone());
        self.stopped_by = Some(stopped);
        self
    }
}

fn input_error(message: String) -> StoppedBy {
    StoppedBy { code: "E_GENERIC", category: "ReportInputError", message, context: json!({}), exit: 2 }
}

/// The report that a path names: the file itself, or the report in a directory.
#[expect(clippy::disallowed_methods, reason = "constant names below a directory that the user named")]
fn resolve(path: &Path) -> Result<PathBuf, String> {
    let shown = path.display();
    let metadata = path.symlink_metadata().map_err(|why| match why.kind() {
        std::io::ErrorKind::NotFound => format!("Path not found: {shown}"),
        _ => format!("Report is not readable: {shown}: {why}"),
    })?;
    if !metadata.is_dir() {
        return Ok(path.to_owned());
    }
    let (report, run) = (path.join(REPORT_NAME), path.join("report.json"));
    match (report.symlink_metadata().is_ok(), run.symlink_metadata().is_ok()) {
        (true, false) => Ok(report),
        (true, true) => Err(format!(
            "Ambiguous report directory {shown}: contains both report.json and {REPORT_NAME}; pass an explicit file path."
        )),
        (false, true) => Err(format!(
            "Directory {shown} contains report.json, which is a run report; verification needs {REPORT_NAME}."
        )),
        (false, false) => {
            Err(format!("Directory {shown} does not contain {REPORT_NAME}; pass the report's path."))
        }
    }
}

fn parse(bytes: &[u8], lenient: bool) -> Result<Value, String> {
    if lenient {
        // Python's reader uses the last of duplicate members, and so does serde_json. NaN remains an error: JSON has none,
        // and no report of upstream that verifies contains one.
        return serde_json::from_slice(bytes).map_err(|why| why.to_string());
    }
    json::parse("the report", bytes).map_err(|why| why.to_string())
}

type Baseline = (Option<(crate::run_report::RunReport, String)>, Option<Value>);

/// The baseline of the options: as a run report, with its SHA-256, and as JSON for its provider digest.
fn load_baseline(options: &VerifyOptions) -> Result<Baseline, String> {
    let Some(path) = &options.baseline else { return Ok((None, None)) };
    let shown = path.display();
    let bytes = read_evidence(path, RUN_REPORT_LIMIT);
    if options.upstream_parity {
        // Upstream ignores an unreadable baseline.
        let value = bytes.ok().and_then(|bytes| serde_json::from_slice(&python_json(&bytes)).ok());
        return Ok((None, value));
    }
    let bytes = bytes.map_err(|why| format!("the baseline {shown} cannot be read: {why}"))?;
    let sha256 = sha256_hex(&bytes);
    let text = python_json(&bytes);
    let value = json::parse(&format!("the baseline {shown}"), &text).map_err(|why| why.to_string())?;
    if Node::root("", &value).get("validation").object().is_some() {
        return Err(format!("the baseline {shown} is an evaluation report; pass the baseline's run report"));
    }
    let run =
        json::parse_run_report(&format!("the baseline {shown}"), &text).map_err(|why| why.to_string())?;
    Ok((Some((run, sha256)), Some(value)))
}

/// Replaces a bare `NaN` by null, only where upstream writes one: as the ratio of a baseline's own run report.
fn python_json(bytes: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.contains("\"ratio_vs_baseline\": NaN") => {
            text.replacen("\"ratio_vs_baseline\": NaN", "\"ratio_vs_baseline\": null", 1).into_bytes()
        }
        _ => bytes.to_vec(),
    }
}

/// The result of `advanced runtime-verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeVerdict {
    /// The report's path as supplied.
    pub report: String,
    /// The manifest's path as supplied.
    pub manifest: String,
    /// What failed, in the order of the checks.
    pub errors: Vec<String>,
    /// The image digest that the manifest names.
    pub declared_image_digest: Option<String>,
    /// The sentence of [`crate::host_execution`] if the manifest records host execution; can contain control characters.
    pub host_execution: Option<String>,
    /// Whether an expected digest was supplied and matched.
    pub expected_digest_matched: bool,
    /// Whether the manifest contains the report's digest.
    pub binding_verified: bool,
    /// How far the evidence can be trusted.
    pub trust: Trust,
}
