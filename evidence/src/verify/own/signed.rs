//! What is signed: the attestation of the evaluation, and the plan lock that it was made under.

use super::super::about::{Lock, Signer};
use super::super::read::read_evidence;
use super::super::{Assurance, Verdict, VerifyOptions};
use super::times::{CLOCK, time};
use super::{Check, sha256_hex};
use crate::attestation::{self, Digests};
use crate::evaluation::Facts;
use crate::format::evaluation_report::EvaluationReport;
use crate::plan_lock::{self, PlanLock};
use crate::signing::dsse::{ENVELOPE_LIMIT, Envelope};
use invarlock_error::{Context as _, Error, Result};
use std::io::ErrorKind;
use std::path::Path;

impl Check<'_> {
    /// The keys that signed the statement about the evidence. An attestation of anything else is a fault.
    ///
    /// # Errors
    /// The file is unreadable or no envelope.
    pub(super) fn attestation(
        &mut self,
        facts: &Facts,
        recorded: &EvaluationReport,
        verdict: &mut Verdict,
    ) -> Result<Vec<Signer>> {
        let found = beside(self.files.path, attestation::FILE_NAME)?;
        if found.is_none() && !self.options.keep_verified {
            return Ok(Vec::new());
        }
        let manifest = sha256_hex(self.files.manifest);
        let digests = Digests { report: &self.files.sha256, manifest: &manifest };
        let statement = attestation::statement(facts, recorded, digests)?.to_bytes();
        verdict.statement = self.options.keep_verified.then(|| statement.clone());
        let Some(bytes) = found else { return Ok(Vec::new()) };
        verdict.attestation = Some(sha256_hex(&bytes));
        let reading = || format!("reading {}", attestation::FILE_NAME);
        let envelope = Envelope::parse(&bytes).with_context(reading)?;
        if envelope.payload() != statement {
            self.faults.push(format!(
                "{} is not about this evidence: its statement is not the one that follows from the report and the manifest",
                attestation::FILE_NAME
            ));
        }
        Ok(self.signers(attestation::FILE_NAME, &envelope))
    }

    /// The lock that the plan names.
    ///
    /// # Errors
    /// It is missing, unreadable, or no plan lock.
    pub(super) fn lock(&mut self, facts: &Facts) -> Result<Option<Lock>> {
        let Some(named) = &facts.plan.request.lock else { return Ok(None) };
        let name = plan_lock::FILE_NAME;
        let bytes = beside(self.files.path, name)?.ok_or_else(|| {
            Error::integrity(format!("{name} is missing: the evaluation was made under it"))
        })?;
        let found = sha256_hex(&bytes);
        if found != *named {
            self.faults.push(format!("{name} was changed: its SHA-256 is {found}, the plan has {named}"));
        }
        let envelope = Envelope::parse(&bytes).with_context(|| format!("reading {name}"))?;
        let lock = PlanLock::read(&envelope).with_context(|| format!("reading {name}"))?;
        self.faults.extend(lock.broken_by(&facts.plan));
        match (time(&lock.locked_at), time(&facts.started_at)) {
            (Some(locked), Some(started)) if (locked - started).num_milliseconds() <= CLOCK => {}
            _ => self.faults.push(format!(
                "{name} was made at {}, not before the evaluation, which started at {}",
                lock.locked_at, facts.started_at
            )),
        }
        let signers = self.signers(name, &envelope);
        Ok(Some(Lock { sha256: found, locked_at: lock.locked_at, signers }))
    }

    /// The keys that an envelope names, and whether the verifier has them. A wrong signature of a known key is a fault.
    fn signers(&mut self, name: &str, envelope: &Envelope) -> Vec<Signer> {
        let mut signers: Vec<Signer> =
            envelope.key_ids().map(|key| Signer { key: key.to_owned(), trusted: false }).collect();
        for key in &self.options.keys {
            match envelope.signed_by(key) {
                Err(error) => self.faults.push(format!("{name}: {error}")),
                Ok(signed) => {
                    let fingerprint = key.fingerprint();
                    let signer = signers.iter_mut().find(|signer| signer.key == fingerprint);
                    signer.into_iter().for_each(|signer| signer.trusted = signed);
                }
            }
        }
        signers
    }
}

/// What evidence with these signatures is worth.
pub(super) fn assurance(signers: &[Signer]) -> Assurance {
    match signers.iter().any(|signer| signer.trusted) {
        true => Assurance::Signed,
        false => Assurance::Consistent,
    }
}

/// Why the verifier wants more than evidence of this worth.
pub(super) fn unmet(found: Assurance, options: &VerifyOptions) -> Option<String> {
    let required = options.require.filter(|required| found < *required)?;
    Some(format!(
        "the evidence is {}, the verifier requires {}: it has no signature of a key that the verifier trusts",
        found.as_str(),
        required.as_str()
    ))
}

/// The content of a file beside the report, if there is one.
fn beside(report: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    match read_evidence(&report.with_file_name(name), ENVELOPE_LIMIT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
        Err(why) => Err(Error::input(format!("reading {name}: {why}"))),
    }
}
