//! `invarlock advanced evidence-pack verify`.

use super::{Answer, report_options};
use crate::args::VerifyPackArgs;
use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::write_output;
use crate::record::now;
use crate::{keys, pack};
use invarlock_evidence::pack::{Inspection, PackFiles, Refusal, Stage};
use invarlock_evidence::verify::{Verdict, VerifyOutput, envelope, success_line, to_line};
use invarlock_images::Digest;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What only `verify` has in JSON.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct VerifyMembers {
    /// Always true.
    strict: bool,
    /// Whether the reports were not verified (`--skip-verify`).
    skip_verify: bool,
    /// Always `report`: each report's own assurance.
    report_assurance: &'static str,
    /// The signature; absent if the pack could not be read.
    #[serde(flatten)]
    checked: Option<CheckedPack>,
    /// The verdicts of the reports; absent if they were not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<VerifyOutput>,
}

/// Level and signature of a pack.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct CheckedPack {
    /// The level in the manifest.
    evidence_level: Option<String>,
    /// Fingerprint of the key that signed; null if no key did.
    signer_fingerprint: Option<String>,
    /// `unpinned` if no key was required, `pinned` if a required key signed, otherwise `mismatch`.
    authenticity: &'static str,
}

/// Exits 0 if the pack is accepted, and else with the number of the stage that refused it.
pub(super) fn run(args: &VerifyPackArgs) -> Result<u8> {
    let options = report_options(&args.reports_as)?;
    let trusted = trusted(args)?;
    if let Some(file) = &args.json_out {
        outside(file, &args.pack)?;
    }
    let members = VerifyMembers {
        strict: true,
        skip_verify: args.skip_verify,
        report_assurance: "report",
        checked: None,
        verify: None,
    };
    let mut answer = Answer::new(args.json, "evidence-pack-verify-v1", &args.pack, members);
    let checked = check(args, &trusted, &mut answer);
    let (files, found) = match checked {
        Ok(checked) => checked,
        Err(refusal) => return answer.print("", Err(refusal)),
    };
    let signer = format!("signed by {}", found.fingerprint().unwrap_or_default());
    let mut lines = vec![match trusted.is_empty() {
        false => signer,
        true => format!("{signer}, a key that was not required: pass --key to require one"),
    }];
    if args.skip_verify {
        answer.warnings.push("the reports were not verified (--skip-verify)".to_owned());
        return answer.print("PACK OK", Ok(lines));
    }
    let verdicts = pack::verify(&args.pack, &files, &found.reports, &options)?;
    let payload = envelope(&verdicts, &now());
    if let Some(file) = &args.json_out {
        write_output(file, format!("{}\n", to_line(&payload)).as_bytes(), true)?;
    }
    answer.members.verify = Some(payload);
    let result = refused(&verdicts).map(|()| {
        lines.extend(
            verdicts.iter().map(|verdict| format!("{} {}", success_line(verdict), verdict.path.display())),
        );
        lines
    });
    answer.print("PACK OK", result)
}

/// Fingerprints of the keys, one of which must have signed.
fn trusted(args: &VerifyPackArgs) -> Result<Vec<String>> {
    let mut trusted = Vec::new();
    for path in &args.keys {
        trusted.push(keys::public(path)?.fingerprint());
    }
    if let Some(text) = &args.expected_fingerprint {
        let digest = Digest::parse(&text.trim().to_lowercase());
        trusted
            .push(digest.map_err(|why| Error::input(format!("--expected-fingerprint: {why}")))?.to_string());
    }
    Ok(trusted)
}

/// Signature and checksums.
fn check(
    args: &VerifyPackArgs,
    trusted: &[String],
    answer: &mut Answer<'_, VerifyMembers>,
) -> Result<(PackFiles, Inspection), Refusal> {
    let files = pack::read(&args.pack)?;
    let found = Inspection::of(&files)?;
    let refused = found.signature_fault(trusted);
    let authenticity = match (trusted.is_empty(), &refused) {
        (true, _) => "unpinned",
        (false, None) => "pinned",
        (false, Some(_)) => "mismatch",
    };
    answer.members.checked = Some(CheckedPack {
        evidence_level: found.manifest.evidence_level.clone(),
        signer_fingerprint: found.fingerprint(),
        authenticity,
    });
    if let Some(why) = refused {
        return Err(Refusal::new(Stage::Signature, why));
    }
    let faults = found.integrity_faults();
    if !faults.is_empty() {
        return Err(Refusal { stage: Stage::Integrity, errors: faults });
    }
    if found.reports.is_empty() {
        return Err(Refusal::new(Stage::Reports, "the pack contains no evaluation report"));
    }
    Ok((files, found))
}

/// Refuses if a report does not verify.
pub(super) fn refused(verdicts: &[Verdict]) -> Result<(), Refusal> {
    let failed = verdicts.iter().filter(|verdict| !verdict.ok());
    let errors: Vec<String> = failed
        .flat_map(|verdict| {
            verdict
                .all_errors()
                .map(|error| format!("{}: {error}", verdict.path.display()))
                .collect::<Vec<_>>()
        })
        .collect();
    match verdicts.iter().all(Verdict::ok) {
        true => Ok(()),
        false => Err(Refusal { stage: Stage::Reports, errors }),
    }
}

/// Refuses an output inside a pack: the pack would then have a file without a checksum.
fn outside(file: &Path, pack: &Path) -> Result<()> {
    let parent =
        file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let existing = |path: &Path| -> Option<PathBuf> { std::fs::canonicalize(path).ok() };
    match (existing(parent), existing(pack)) {
        (Some(parent), Some(pack)) if parent.starts_with(&pack) || existing(file).as_ref() == Some(&pack) => {
            Err(Error::input(format!("--json-out {}: the file is inside the pack", file.display())))
                .context("checking the output")
                .hint("choose a file outside the pack")
        }
        _ => Ok(()),
    }
}
