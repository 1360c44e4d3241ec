//! Evidence of this program: what `evaluate` derived when it wrote, is derived again from the raw records with the same code.
//!
//! 1. The manifest must be the one that its own facts give ([`Facts::manifest`]).
//! 2. Each run report must be the one that its own values give ([`Measured::report`](crate::measured::Measured::report)), and the answer to the plan.
//! 3. The report must be the one that facts and run reports give ([`Facts::compare`]).
//! 4. Plan, observations, outcomes and times must be those of two finished, isolated runs.
//! 5. An attestation must be the statement that follows from the rest, and a plan lock must be kept.
//! 6. The gates are judged again, with the profile and the tier of the verifier.

mod consistent;
mod demands;
mod documents;
mod plan;
mod run_reports;
mod signed;
pub(super) mod times;
mod windows;

use super::about::About;
use super::provenance::{Issue, ProvenanceResult, ProvenanceStatus};
use super::summary::Summary;
use super::{Assurance, Judged, MAX_LISTED, Reason, RuntimeProvenance, Verdict, VerifyOptions, observed};
use crate::evaluation::Facts;
use crate::format::evaluation_report::EvaluationReport;
use crate::format::plan::ExecutionMode;
use crate::format::runtime_manifest::RuntimeManifest;
use crate::format::to_value;
use crate::format::untrusted::Node;
use crate::host_execution;
use crate::job::Role;
use crate::manifest::{self, FILE_NAME};
use crate::numerics::digest::sha256_hex;
use crate::policy::Profile;
use crate::sentences::weaker_profile;
use crate::verify::differences::differences;
use crate::verify::reproduce::Verified;
use crate::{gates, guards};
pub use consistent::consistent_run_report;
use consistent::{Compared, Consistent};
use demands::Demands;
use invarlock_error::{Context as _, Error, Kind, Result};
use run_reports::MeasuredSides;
use serde::Deserialize as _;
use serde_json::Value;
use std::path::Path;

/// Name of the evaluation report in messages.
const REPORT: &str = "evaluation.report";
/// Name of the manifest in messages.
const MANIFEST: &str = "runtime.manifest";

/// The files of one evaluation.
pub(super) struct Files<'a> {
    /// Path of the report.
    pub(super) path: &'a Path,
    /// Its bytes.
    pub(super) report: &'a [u8],
    /// SHA-256 of them, hexadecimal.
    pub(super) sha256: String,
    /// Bytes of the manifest.
    pub(super) manifest: &'a [u8],
    /// The manifest.
    pub(super) parsed: &'a Value,
}

/// Verifies the evidence.
pub(super) fn verify(files: &Files<'_>, options: &VerifyOptions, mut verdict: Verdict) -> Verdict {
    let (faults, gates) = (Vec::new(), Vec::new());
    let mut check =
        Check { files, options, faults, demands: Demands::default(), gates, found: Assurance::Failed };
    let ended = check.all(&mut verdict).err();
    let malformed = ended.as_ref().is_some_and(|error| error.kind() == Kind::Input);
    check.faults.extend(ended.map(|error| error.to_string()));
    let Check { mut faults, demands: Demands { unmet: demands, matched }, gates, found, .. } = check;
    verdict.matched = matched;
    faults.truncate(MAX_LISTED);
    verdict.reason = match (faults.is_empty(), demands.is_empty() && gates.is_empty()) {
        (true, true) => Reason::Ok,
        (false, _) if malformed => Reason::Malformed,
        (false, _) if options.profile.has_integrity_code() => Reason::Integrity,
        _ => Reason::PolicyFail,
    };
    verdict.assurance = if verdict.ok() { found } else { Assurance::Failed };
    verdict.errors = faults.into_iter().chain(demands).collect();
    verdict.gate_failures = gates;
    verdict.provenance = provenance(&verdict, options);
    verdict
}

/// `verification.runtime_provenance` in JSON.
fn provenance(verdict: &Verdict, options: &VerifyOptions) -> ProvenanceResult {
    let skipped = options.runtime_provenance == RuntimeProvenance::Host;
    let status = match (skipped, verdict.errors.is_empty(), verdict.matched.is_empty()) {
        (true, ..) => ProvenanceStatus::Skipped,
        (_, false, _) => ProvenanceStatus::Failed,
        (_, true, false) => ProvenanceStatus::Matched,
        (_, true, true) => ProvenanceStatus::ManifestBound,
    };
    let mode = if verdict.host_execution.is_some() { "host" } else { "container" };
    let issues = verdict.errors.iter().map(|message| Issue::new("verifier_failed", message));
    ProvenanceResult {
        declared_mode: Some(mode.to_owned()),
        status,
        verified: Some(false),
        skipped,
        strict_blocking: Some(!verdict.errors.is_empty()),
        issues: Some(issues.collect()),
        assurance_mode: Some("off".to_owned()),
    }
}

struct Check<'a> {
    files: &'a Files<'a>,
    options: &'a VerifyOptions,
    /// Where the evidence contradicts itself.
    faults: Vec<String>,
    demands: Demands,
    /// Gates that the subject fails.
    gates: Vec<String>,
    /// What the evidence is worth if nothing failed.
    found: Assurance,
}

impl Check<'_> {
    /// Runs every check. An error ends the checks that need the missing value; it is a fault, too.
    fn all(&mut self, verdict: &mut Verdict) -> Result<()> {
        verdict.host_execution = host_execution::recorded(&Value::Null, Some(self.files.parsed));
        let manifest = self.manifest()?;
        let facts = Facts::read(&manifest);
        // The same bytes are written in the same way and have the same values.
        let derived = facts.as_ref().is_ok_and(|facts| self.is_derived(&manifest, facts));
        if !derived {
            self.written_by_this_program(&manifest);
        }
        self.observations(manifest.execution_mode);
        let facts = facts?;
        let mut about = About::of(&facts);
        verdict.about = Some(about.clone());
        self.demands = Demands::of(&facts, self.options)?;
        if !derived {
            self.derived_manifest(&facts);
        }
        plan::faults(&facts, &mut self.faults);
        let documents = documents::read(self.files, &facts);
        let recorded = documents.report.unpack(&mut self.faults)?;
        verdict.summary = Some(Summary::of(&recorded));
        let baseline = documents.baseline.unpack(&mut self.faults);
        let subject = documents.subject.unpack(&mut self.faults);
        let ((baseline, before), subject) = (baseline?, subject?);
        let before = before?;
        let after = Consistent::check(Role::Subject, &subject, Some(&before))?;
        let hashes = [before.digests.hashes, after.digests.hashes];
        let measured =
            run_reports::check(&facts, &baseline, [before.measured, after.measured], &mut self.faults)?;
        let compared = Compared { baseline, subject, hashes };
        times::faults(&facts, &measured, &mut self.faults);
        about.resumed = measured.resumed();
        // The evidence says that a report was made of these measurements.
        let (profile, tier) = facts.policy()?;
        let derived =
            compared.report(&facts, profile, tier).map_err(|error| error.with_kind(Kind::Integrity))?;
        self.derived_report(&recorded, &derived);
        let signers = self.attestation(&facts, &recorded, verdict)?;
        self.found = signed::assurance(&signers);
        self.demands.unmet.extend(signed::unmet(self.found, self.options));
        about.signers = signers;
        about.lock = self.lock(&facts)?;
        verdict.about = Some(about);
        verdict.judged = Some(self.judge(&facts, &compared, derived)?);
        let MeasuredSides { baseline, subject } = measured;
        if self.options.keep_verified {
            verdict.verified = Some(Box::new(Verified { facts, baseline, subject }));
        }
        verdict
            .recomputed
            .push("every value of the report, from the run reports and the manifest".to_owned());
        verdict
            .not_recomputed
            .push("losses and statistics of the guards: they need the weights and the evaluator".to_owned());
        Ok(())
    }

    /// The manifest, which must contain the digest of the report.
    fn manifest(&mut self) -> Result<RuntimeManifest> {
        let Files { parsed, sha256: actual, .. } = self.files;
        let reading = || format!("reading {FILE_NAME}");
        let manifest: RuntimeManifest = RuntimeManifest::deserialize(*parsed)
            .map_err(|why| Error::input(why.to_string()))
            .with_context(reading)?;
        self.refuse_run_report(actual)?;
        if manifest.report.sha256 != *actual {
            self.faults.push(format!(
                "evaluation.report.json was changed, or is not the report of this manifest: its SHA-256 is {actual}, \
                 {FILE_NAME} has {}",
                manifest.report.sha256
            ));
        }
        Ok(manifest)
    }

    /// Whether the manifest has the bytes of the one that follows from its facts.
    fn is_derived(&self, manifest: &RuntimeManifest, facts: &Facts) -> bool {
        // The digest of the report was compared before.
        manifest::into_bytes(facts.manifest(&manifest.report.sha256)) == self.files.manifest
    }

    /// The bytes of the manifest are those that this program writes.
    fn written_by_this_program(&mut self, manifest: &RuntimeManifest) {
        if manifest::to_bytes(manifest) != self.files.manifest {
            self.faults.push(format!(
                "{FILE_NAME} is not written as this program writes it: white space, order or \
                 spelling differ"
            ));
        }
    }

    /// A path of one of the run reports is a mistake of the user.
    fn refuse_run_report(&self, sha256: &str) -> Result<()> {
        let sides = Node::root("", self.files.parsed).at("context.sides");
        let outputs =
            ["baseline", "subject"].into_iter().flat_map(|side| sides.get(side).get("outputs").elements());
        match outputs.filter_map(|output| output.get("sha256").str()).any(|output| output == sha256) {
            true => Err(Error::input(format!(
                "{} is a run report; pass the evaluation report, or the directory",
                self.files.path.display()
            ))),
            false => Ok(()),
        }
    }

    fn derived_manifest(&mut self, facts: &Facts) {
        // The digest of the report was compared before.
        let stated = self.files.parsed.pointer("/report/sha256").and_then(Value::as_str).unwrap_or_default();
        let derived = to_value(&facts.manifest(stated));
        self.faults.extend(differences(MANIFEST, self.files.parsed, &derived, 0.0));
    }

    /// What was observed of each container.
    fn observations(&mut self, mode: ExecutionMode) {
        let context = Node::root("", self.files.parsed).get("context");
        let sides = [
            (context.at("sides.baseline"), context.at("plan.content.sides.baseline")),
            (context.at("sides.subject"), context.at("plan.content.sides.subject")),
        ];
        for (side, planned) in sides.into_iter().filter(|_| mode == ExecutionMode::Container) {
            // A reused baseline was measured under a plan of its own, possibly by another user.
            let planned = (side.get("reused").bool() != Some(true)).then_some(planned);
            self.faults.extend(observed::faults(&observed::Side {
                side,
                planned,
                inputs: None,
                devices: None,
            }));
        }
    }

    fn derived_report(&mut self, recorded: &EvaluationReport, derived: &EvaluationReport) {
        if recorded == derived {
            return;
        }
        // On another processor, or with another mathematical library, the last digits can differ.
        let tolerance = self.options.tolerance.max(1e-12);
        self.faults.extend(differences(REPORT, &to_value(recorded), &to_value(derived), tolerance));
    }

    /// The gates, with the profile and the tier of the verifier.
    fn judge(&mut self, facts: &Facts, compared: &Compared, derived: EvaluationReport) -> Result<Judged> {
        let (made, tier) = facts.policy()?;
        let (profile, required) = (self.options.profile, self.options.tier.unwrap_or(tier));
        let missing = guards::missing(&derived);
        let judged = match (profile, required) == (made, tier) {
            true => Ok(derived),
            false => compared.report(facts, profile, required),
        };
        if profile.needs_all_guards() && !missing.is_empty() {
            self.gates.extend(not_met(made, profile));
            self.gates.extend(
                missing
                    .iter()
                    .map(|name| format!("{name} was not evaluated; profile {profile} requires every guard")),
            );
            return Ok(Judged { profile, tier: required });
        }
        let failed = match judged {
            Ok(report) if gates::all_true(profile, &report.validation) => Vec::new(),
            Ok(report) => gates::failures(&report.without_windows()),
            Err(error) => vec![error.to_string()],
        };
        if !failed.is_empty() {
            self.gates.extend(not_met(made, profile));
            if required != tier {
                self.gates.push(format!("made with tier {tier}; not met under {required}"));
            }
        }
        self.gates.extend(failed);
        Ok(Judged { profile, tier: required })
    }
}

/// The first reason why evidence of a weaker profile fails; none where the required one demands no more.
fn not_met(made: Profile, required: Profile) -> Option<String> {
    let demands_more = made.gated() != required.gated() || required.needs_all_guards();
    (made < required && demands_more).then(|| weaker_profile(made, required))
}
