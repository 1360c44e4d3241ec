//! The receipt of a verification: which evidence was accepted under which demands, signed by the verifier.
//!
//! The predicate is SLSA's verification summary. Its consumers ignore members that they do not know, so that the facts that only this
//! program has are in one member of its own, `invarlock_verification`. <https://slsa.dev/spec/v1.1/verification_summary>

use crate::attestation::{self, EvaluationResult};
use crate::evaluation::REPORT;
use crate::format::trust_profile::TrustProfile;
use crate::plan_lock;
use crate::signing::statement::{Descriptor, Statement};
use crate::verify::Verdict;
use crate::verify::reproduce::Reproduction;
use invarlock_error::{Context as _, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Type of the predicate.
pub const PREDICATE: &str = "https://slsa.dev/verification_summary/v1";
/// `verifier.id`: the verification of this program. Who ran it is the owner of the key that signed the receipt.
pub const VERIFIER: &str = "https://invarlock.dev/verify/v1";

/// SLSA's verification summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VerificationSummary {
    /// The program that verified.
    pub verifier: Verifier,
    /// When, UTC, RFC 3339.
    pub time_verified: String,
    /// The report, as a package URL with its digest.
    pub resource_uri: String,
    /// What was required.
    pub policy: Descriptor,
    /// The signed files that were read: the attestation and the plan lock.
    pub input_attestations: Vec<Descriptor>,
    /// Always `PASSED`: refused evidence gets no receipt.
    pub verification_result: String,
    /// The assurance, such as `INVARLOCK_SIGNED`.
    pub verified_levels: Vec<String>,
    /// What SLSA has no member for.
    #[serde(rename = "invarlock_verification")]
    pub verification: Verification,
}

/// A verifying program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Verifier {
    /// Always [`VERIFIER`].
    pub id: String,
    /// Version by name of the program.
    pub version: BTreeMap<String, String>,
}

/// How the evidence was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Verification {
    /// The demands.
    pub trust_profile: TrustProfile,
    /// Largest accepted difference between a recorded and a recomputed number.
    pub tolerance: f64,
    /// The profile that the gates were judged with.
    pub profile: String,
    /// The tier that the gates were judged with.
    pub tier: String,
    /// The digests that the verifier required and that match.
    pub matched: Vec<String>,
    /// The trusted keys that signed the evidence.
    pub signers: Vec<String>,
    /// What was measured again, if anything was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reproduction: Option<Reproduction>,
}

/// The demands of a verification.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The file of the trust profile, or the canonical JSON of the one that says the same as the options; with its digest.
    pub descriptor: Descriptor,
    /// The trust profile.
    pub trust_profile: TrustProfile,
    /// Largest accepted difference between a recorded and a recomputed number.
    pub tolerance: f64,
}

/// The statement of a receipt. Its subjects are those of an attestation of the evidence.
///
/// # Errors
/// The evidence was refused, or is of another maker.
pub fn statement(verdict: &Verdict, policy: Policy, now: &str) -> Result<Statement<VerificationSummary>> {
    if !verdict.ok() {
        return Err(Error::input("the evidence was refused"));
    }
    let (Some(statement), Some(judged), Some(about)) = (&verdict.statement, verdict.judged, &verdict.about)
    else {
        return Err(Error::input("evidence of other makers does not say what it is about"));
    };
    let attested: Statement<EvaluationResult> = serde_json::from_slice(statement)
        .map_err(|why| Error::system(why.to_string()))
        .context("reading the statement about the evidence")?;
    let digest_of = |name: &str| attested.subject.iter().find(|file| file.name == name)?.digest.get("sha256");
    let report = digest_of(REPORT).ok_or_else(|| Error::system("the statement does not name the report"))?;
    let attestation = verdict.attestation.iter().map(|digest| (attestation::FILE_NAME, digest));
    let lock = about.lock.iter().map(|lock| (plan_lock::FILE_NAME, &lock.sha256));
    let summary = VerificationSummary {
        verifier: Verifier {
            id: VERIFIER.to_owned(),
            version: BTreeMap::from([("invarlock".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        },
        time_verified: now.to_owned(),
        resource_uri: format!("pkg:generic/{REPORT}?checksum=sha256:{report}"),
        policy: policy.descriptor,
        input_attestations: attestation
            .chain(lock)
            .map(|(name, sha256)| Descriptor::new(name, sha256))
            .collect(),
        verification_result: "PASSED".to_owned(),
        verified_levels: vec![format!("INVARLOCK_{}", verdict.assurance.as_str().to_uppercase())],
        verification: Verification {
            trust_profile: policy.trust_profile,
            tolerance: policy.tolerance,
            profile: judged.profile.to_string(),
            tier: judged.tier.to_string(),
            matched: verdict.matched.clone(),
            signers: about
                .signers
                .iter()
                .filter(|signer| signer.trusted)
                .map(|signer| signer.key.clone())
                .collect(),
            reproduction: verdict.reproduction.clone(),
        },
    };
    Ok(Statement::new(PREDICATE, attested.subject, summary))
}
