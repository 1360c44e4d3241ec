//! `invarlock advanced evidence-pack inspect`.

use super::Answer;
use crate::args::InspectPackArgs;
use crate::error::Result;
use crate::pack;
use invarlock_evidence::pack::{Inspection, Refusal, Signer, Stage};
use serde::Serialize;

/// What only `inspect` has in JSON.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct InspectMembers {
    /// The pack; absent if it could not be read.
    #[serde(flatten)]
    found: Option<InspectedPack>,
}

/// A pack that was read.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct InspectedPack {
    /// Its manifest.
    manifest: InspectedManifest,
    /// Its signature.
    signature: InspectedSignature,
    /// Its reports, which were not verified.
    reports: InspectedReports,
    /// Numbers of its files.
    artifacts: InspectedFiles,
    /// Whether its files are those that were packed.
    integrity: InspectedIntegrity,
    /// Whether `evidence-pack verify` finds no fault before it verifies the reports.
    strict_ready: bool,
    /// As in `manifest`.
    evidence_level: Option<String>,
    /// Every fault.
    issues: Vec<String>,
}

/// The manifest of a pack.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct InspectedManifest {
    /// Always true: a pack with another manifest is refused.
    valid: bool,
    /// Always `evidence-pack-v1`.
    format: String,
    /// The level that it states.
    evidence_level: Option<String>,
}

/// The signature of a pack.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct InspectedSignature {
    /// Whether there is one.
    present: bool,
    /// Whether it is that of the key that the pack contains.
    valid: bool,
    /// Fingerprint of that key.
    signer_fingerprint: Option<String>,
}

/// The reports of a pack.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct InspectedReports {
    /// Their number.
    total: usize,
    /// Their paths.
    paths: Vec<String>,
}

/// Numbers of files of a pack.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct InspectedFiles {
    /// All files.
    files: usize,
    /// Files with a checksum.
    hashed: usize,
}

/// Whether the files of a pack are those that were packed.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct InspectedIntegrity {
    /// The manifest contains the digest of the checksums.
    checksums_bound: bool,
    /// Every file has its checksum.
    checksums_ok: bool,
    /// Copies of manifest, signature and checksums are equal to them.
    control_file_mirrors_ok: bool,
    /// Files that the manifest names have the digests in it.
    manifest_provenance_ok: bool,
    /// Files without a checksum.
    extra_files: Vec<String>,
}

/// Exits 3, 4 or 6 like a verification without keys and reports.
pub(super) fn run(args: &InspectPackArgs) -> Result<u8> {
    let members = InspectMembers { found: None };
    let mut answer = Answer::new(args.json, "evidence-pack-inspect-v1", &args.pack, members);
    let result = inspect(args, &mut answer);
    answer.print("PACK", result)
}

fn inspect(args: &InspectPackArgs, answer: &mut Answer<'_, InspectMembers>) -> Result<Vec<String>, Refusal> {
    let files = pack::read(&args.pack)?;
    let found = Inspection::of(&files)?;
    let (faults, signature) = (found.integrity_faults(), found.signature_fault(&[]));
    let present = found.signer != Signer::None;
    let level = &found.manifest.evidence_level;
    answer.members.found = Some(InspectedPack {
        manifest: InspectedManifest {
            valid: true,
            format: found.manifest.format.clone(),
            evidence_level: level.clone(),
        },
        signature: InspectedSignature {
            present,
            valid: signature.is_none(),
            signer_fingerprint: found.fingerprint(),
        },
        reports: InspectedReports { total: found.reports.len(), paths: found.reports.clone() },
        artifacts: InspectedFiles { files: files.len(), hashed: found.hashed },
        integrity: InspectedIntegrity {
            checksums_bound: found.checksums_bound,
            checksums_ok: found.checksum_faults.is_empty(),
            control_file_mirrors_ok: found.mirror_faults.is_empty(),
            manifest_provenance_ok: found.reference_faults.is_empty(),
            extra_files: found.extra_files.clone(),
        },
        strict_ready: faults.is_empty() && signature.is_none(),
        evidence_level: level.clone(),
        issues: faults.iter().chain(&signature).cloned().collect(),
    });
    answer.warnings.extend(signature);
    if !faults.is_empty() {
        return Err(Refusal { stage: Stage::Integrity, errors: faults });
    }
    let signer = found.fingerprint().unwrap_or_else(|| "no key".to_owned());
    let mut lines = vec![
        format!("signed by  {signer}"),
        format!("files      {}", files.len()),
        format!("level      {}", level.as_deref().unwrap_or("none")),
    ];
    lines.extend(found.reports.iter().map(|report| format!("report     {report}")));
    lines.push("the reports were not verified; use `invarlock advanced evidence-pack verify`".to_owned());
    Ok(lines)
}
