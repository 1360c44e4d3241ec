//! Verification of evidence: reads reports and manifests from disk and trusts nothing in them.
//!
//! `own` derives evidence of this program again, and `observed` judges what was observed of its containers. For evidence of other makers
//! (`foreign`), `upstream` repeats upstream's checks, and `strict` recomputes what follows from the values of the report.

mod about;
mod alone;
mod delegated;
mod devices;
mod differences;
mod document;
mod foreign;
mod observed;
mod open;
mod output;
mod own;
mod planned;
mod provenance;
mod python;
mod read;
pub mod reproduce;
mod runtime;
mod schema;
mod strict;
mod summary;
mod upstream;

pub use about::{About, Signer};
pub use alone::contradictions;
pub use delegated::DelegatedRunVerdict;
pub use document::{RuntimeVerifyOutput, VerifyOutput, envelope};
pub use open::{OpenReport, open_manifest, open_report};
pub use output::{exit_code, success_line, to_line};
pub use own::consistent_run_report;
pub use provenance::{Issue, ProvenanceResult, ProvenanceStatus};
pub use read::{MANIFEST_LIMIT, REPORT_LIMIT, RUN_REPORT_LIMIT, read_evidence};
pub use runtime::{RuntimeOptions, runtime_verify, runtime_verify_bytes, runtime_verify_with};
pub use summary::{Recompute, Summary};

use crate::format::tiers::TiersFile;
use crate::format::untrusted::Node;
use crate::manifest::FILE_NAME;
use crate::numerics::digest::sha256_hex;
use crate::policy::{Profile, Tier};
use crate::signing::keys::PublicKey;
use crate::{evaluation, json, newer};
use chrono::{DateTime, FixedOffset};
use reproduce::{Reproduction, Verified};
use serde::Serialize;
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

/// Digests that the evidence must be about: SHA-256 over names and digests of the files, hexadecimal. None: any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    /// The baseline checkpoint.
    pub baseline: Option<String>,
    /// The subject checkpoint.
    pub subject: Option<String>,
    /// The dataset files.
    pub dataset: Option<String>,
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
    /// Digests of the models and the data that the evidence must be about.
    pub pins: Pins,
    /// The keys that the verifier trusts.
    pub keys: Vec<PublicKey>,
    /// What the evidence must be worth at least.
    pub require: Option<Assurance>,
    /// SHA-256 of the plan lock that the evaluation must have been made under.
    pub lock: Option<String>,
    /// Limits that may replace those of the tier; evidence with others, or with any if it is none, is refused.
    pub tiers: Option<TiersFile>,
    /// Accept evidence with any limits of a tiers file.
    pub any_tiers: bool,
    /// Evidence that was finished before this time is refused.
    pub oldest: Option<DateTime<FixedOffset>>,
    /// Digest of the image that must have run: `sha256:` and 64 hex digits.
    pub expected_image_digest: Option<String>,
    /// The controls that may be disabled, named as in the manifest's `context.loosened`: `allow_network`, ... No other
    /// control may be disabled.
    pub granted: Vec<String>,
    /// Keep what a signature and a reproduction need: [`Verdict::statement`] and [`Verdict::verified`].
    pub keep_verified: bool,
    /// Accept evidence of other makers.
    pub accept_foreign: bool,
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
            pins: Pins::default(),
            keys: Vec::new(),
            require: None,
            lock: None,
            tiers: None,
            any_tiers: false,
            oldest: None,
            expected_image_digest: None,
            granted: Vec::new(),
            keep_verified: false,
            accept_foreign: false,
            upstream_parity: false,
            upstream_version: UpstreamVersion::default(),
        }
    }
}

/// How far the evidence can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
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

/// What evidence is worth, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Assurance {
    /// A check failed.
    Failed,
    /// Another maker's evidence: where its numbers come from was not checked.
    Foreign,
    /// The evidence of this program does not contradict itself. No key that the verifier trusts signed it.
    Consistent,
    /// It is consistent, and a key that the verifier trusts signed it.
    Signed,
    /// The verifier measured randomly chosen windows again and found the recorded losses.
    Reproduced,
}

impl Assurance {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Assurance::Failed => "failed",
            Assurance::Foreign => "foreign",
            Assurance::Consistent => "consistent",
            Assurance::Signed => "signed",
            Assurance::Reproduced => "reproduced",
        }
    }

    /// What the word means, in one sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Assurance::Failed => "a check failed",
            Assurance::Foreign => "not written by this program: where its numbers come from was not checked",
            Assurance::Consistent => "no trusted signature: its author could have written all of it",
            Assurance::Signed => "signed by a trusted key: the owner of the key could have written all of it",
            Assurance::Reproduced => {
                "randomly chosen windows were measured again here, with the recorded losses"
            }
        }
    }
}

/// The kind of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing failed.
    Ok,
    /// The report is well-formed, and a policy or a gate failed. Exit code 1.
    PolicyFail,
    /// The evidence contradicts itself or lacks what it must contain (all profiles but dev). Exit code 3. Upstream calls this
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
    /// What the evidence is worth.
    pub assurance: Assurance,
    /// Profile and tier that the gates were judged with, by name; none if they were not judged.
    pub judged: Option<Judged>,
    /// The digests that the verifier pinned and that match.
    pub matched: Vec<String>,
    /// What the evidence is about; none for evidence of another maker.
    pub about: Option<About>,
    /// The sentence of [`crate::host_execution`] if report or manifest records host execution; can contain control characters.
    pub host_execution: Option<String>,
    /// The run of the program that wrote the report, if this program ran it.
    pub delegated: Option<DelegatedRunVerdict>,
    /// Numbers of the report, if it is readable.
    pub summary: Option<Summary>,
    /// The statement about the evidence, which an attestation signs, if [`VerifyOptions::keep_verified`] is set; none for evidence of another
    /// maker.
    pub statement: Option<Vec<u8>>,
    /// SHA-256 of the attestation that was read.
    pub attestation: Option<String>,
    /// What was verified, if [`VerifyOptions::keep_verified`] is set; none for evidence of another maker.
    pub verified: Option<Box<Verified>>,
    /// What was measured again.
    pub reproduction: Option<Reproduction>,
    /// The result of the runtime provenance (`verification.runtime_provenance` in JSON).
    pub provenance: ProvenanceResult,
}

/// What the gates were judged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Judged {
    /// The profile of the verifier.
    pub profile: Profile,
    /// The tier of the verifier, or else that of the report.
    pub tier: Tier,
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

    /// Fingerprints of the trusted keys that signed accepted evidence.
    pub fn trusted_signers(&self) -> impl Iterator<Item = &str> {
        let signers = self.about.iter().filter(|_| self.ok()).flat_map(|about| &about.signers);
        signers.filter(|signer| signer.trusted).map(|signer| signer.key.as_str())
    }

    /// What the assurance means, in one sentence. Evidence that was measured again can be signed, too.
    pub fn meaning(&self) -> String {
        let meaning = self.assurance.meaning();
        match self.assurance == Assurance::Reproduced && self.trusted_signers().next().is_some() {
            true => format!("{meaning}; signed by a trusted key"),
            false => meaning.to_owned(),
        }
    }

    /// The verdict after a reproduction that found these differences.
    pub fn reproduced(&mut self, reproduction: Reproduction, differences: Vec<String>) {
        self.not_recomputed = match reproduction.measured < reproduction.windows {
            true => vec!["the losses of the other windows".to_owned()],
            false => Vec::new(),
        };
        self.reproduction = Some(reproduction);
        if differences.is_empty() {
            self.assurance = Assurance::Reproduced;
        } else {
            let integrity = self.judged.is_none_or(|judged| judged.profile.has_integrity_code());
            self.reason = if integrity { Reason::Integrity } else { Reason::PolicyFail };
            self.assurance = Assurance::Failed;
            self.errors.extend(differences);
        }
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
    observed::faults(&observed::Side {
        side: Node::part(path, side),
        planned: None,
        inputs: None,
        devices: None,
    })
}

/// The most faults that a verdict lists.
const MAX_LISTED: usize = 50;

/// Exit code for evidence that contradicts itself.
const INTEGRITY: i32 = 3;

/// File name of the report in a directory.
const REPORT_NAME: &str = "evaluation.report.json";

/// Verifies one report: a file, or a directory that contains `evaluation.report.json`.
pub fn verify_report(path: &Path, options: &VerifyOptions) -> Verdict {
    let verdict = Verdict::new(path, options);
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
    if options.upstream_parity {
        return foreign::verify(&file, &bytes, options, verdict);
    }
    // Whose evidence it is follows from what it contains: this program records a plan.
    let manifest_path = file.with_file_name(FILE_NAME);
    let manifest = match read_evidence(&manifest_path, MANIFEST_LIMIT) {
        Ok(manifest) => Some(manifest),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => None,
        Err(why) => {
            let why = format!("reading {}: {why}", manifest_path.display());
            return verdict.stop(Reason::Malformed, input_error(why));
        }
    };
    let Some(manifest) = manifest else { return foreign::verify(&file, &bytes, options, verdict) };
    match json::parse(FILE_NAME, &manifest) {
        Err(error) => verdict.stop(Reason::Malformed, input_error(error.to_string())),
        Ok(parsed) if !parsed.is_object() => {
            verdict.stop(Reason::Malformed, input_error(format!("{FILE_NAME} is not a JSON object")))
        }
        Ok(parsed) if evaluation::is_own(&parsed) => {
            let files = own::Files {
                path: &file,
                report: &bytes,
                sha256: sha256_hex(&bytes),
                manifest: &manifest,
                parsed: &parsed,
            };
            own::verify(&files, options, verdict)
        }
        Ok(_) => foreign::verify(&file, &bytes, options, verdict),
    }
}

impl Verdict {
    fn new(path: &Path, options: &VerifyOptions) -> Self {
        let skipped = options.runtime_provenance == RuntimeProvenance::Host;
        Verdict {
            path: path.to_owned(),
            reason: Reason::Malformed,
            stopped_by: None,
            gate_failures: Vec::new(),
            errors: Vec::new(),
            recomputed: Vec::new(),
            not_recomputed: Vec::new(),
            assurance: Assurance::Failed,
            judged: None,
            matched: Vec::new(),
            about: None,
            host_execution: None,
            delegated: None,
            summary: None,
            statement: None,
            attestation: None,
            verified: None,
            reproduction: None,
            provenance: ProvenanceResult::unread(skipped),
        }
    }

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
            // A pack of InvarLock 0.13 or newer has its report deeper.
            let manifest = read_evidence(&path.join("manifest.json"), MANIFEST_LIMIT).ok();
            let manifest = manifest.and_then(|bytes| json::parse("manifest.json", &bytes).ok());
            if let Some(newer) = manifest.as_ref().and_then(newer::sentence) {
                return Err(format!("{shown} is {newer}; {}", newer::REMEDY));
            }
            Err(format!("Directory {shown} does not contain {REPORT_NAME}; pass the report's path."))
        }
    }
}

fn parse(bytes: &[u8], lenient: bool) -> Result<Value, String> {
    json::check_size("the report", bytes).map_err(|why| why.to_string())?;
    if lenient {
        // Python's reader uses the last of duplicate members, and so does serde_json. NaN remains an error: JSON has none,
        // and no report of upstream that verifies contains one.
        return serde_json::from_slice(bytes).map_err(|why| why.to_string());
    }
    json::parse("the report", bytes).map_err(|why| why.to_string())
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
