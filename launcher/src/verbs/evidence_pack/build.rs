//! `invarlock advanced evidence-pack build`.

use super::verify::refused;
use super::{Answer, Total, report_options};
use crate::args::BuildPackArgs;
use crate::error::{Context as _, Error, Result};
use crate::output::ShownPath;
use crate::pack::object;
use crate::record::now;
use crate::{keys, pack};
use invarlock_evidence::pack::{
    BuildInput, CHECKSUMS, FinalVerdict, Inspection, MANIFEST, Material, PackFiles, Refusal, ReportVerdict,
    SIGNATURE, Stage, build, check_material_name, report_path,
};
use invarlock_evidence::signing::keys::SigningKey;
use invarlock_evidence::verify::{REPORT_LIMIT, Verdict, VerifyOutput, envelope, read_evidence};
use serde::Serialize;
use std::path::Path;

/// What only `build` has in JSON.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct BuildMembers<'a> {
    /// The reports in the pack; 0 if it was not built.
    reports: Total,
    /// The profile that the reports were verified with.
    profile: &'a str,
    /// Always `report`: each report's own assurance.
    report_assurance: &'static str,
    /// The verdicts of the reports; absent if they were not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<VerifyOutput>,
    /// The pack; absent if it was not built.
    #[serde(flatten)]
    built: Option<BuiltPack<'a>>,
}

/// A pack that was built.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct BuiltPack<'a> {
    /// `high` if the pack names the source and the environment, otherwise `medium`.
    evidence_level: Option<String>,
    /// The archive, if one was asked for.
    archive: Option<ShownPath<'a>>,
    /// Its files.
    files: BuiltFiles,
    /// Its signature.
    signature: BuiltSignature,
}

/// The files of a pack.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct BuiltFiles {
    /// Files with a checksum.
    hashed: usize,
    /// Path of the manifest.
    manifest: &'static str,
    /// Path of the checksums.
    checksums: &'static str,
}

/// The signature of a pack.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct BuiltSignature {
    /// Whether there is one.
    present: bool,
    /// Its path; null if there is none.
    file: Option<&'static str>,
    /// Fingerprint of the key; null if there is none.
    signer_fingerprint: Option<String>,
}

/// Exits 4 if an input is missing or malformed, 7 if a report does not verify.
pub(super) fn run(args: &BuildPackArgs) -> Result<u8> {
    for path in [Some(&args.out), args.archive.as_ref()].into_iter().flatten() {
        if path.symlink_metadata().is_ok() {
            return Err(Error::input(format!("{} exists", path.display())))
                .hint("choose another name; packs are never replaced");
        }
    }
    args.materials.iter().try_for_each(|(name, _)| check_material_name(name))?;
    let members = BuildMembers {
        reports: Total { total: 0 },
        profile: &args.reports_as.profile,
        report_assurance: "report",
        verify: None,
        built: None,
    };
    let mut answer = Answer::new(args.json, "evidence-pack-build-v1", &args.out, members);
    let result = build_pack(args, &mut answer)?;
    answer.print("PACK BUILT", result)
}

/// Builds the pack; the outer error is one of usage or of this machine.
fn build_pack<'a>(
    args: &'a BuildPackArgs,
    answer: &mut Answer<'_, BuildMembers<'a>>,
) -> Result<Result<Vec<String>, Refusal>> {
    let options = report_options(&args.reports_as)?;
    let key = args.signing_key.as_deref().map(keys::signing).transpose()?;
    let (reports, mut input) =
        match pack::collect(&args.reports).and_then(|reports| Ok((reports, input(args)?))) {
            Ok(read) => read,
            Err(error) => return Ok(Err(Refusal::new(Stage::Format, error.to_string()))),
        };
    let paths: Vec<String> =
        (1..=args.reports.len()).map(|n| report_path(n, crate::evidence_dir::REPORT)).collect();
    // Verified as they will lie in the pack: complete, and from the bytes that are packed.
    let verdicts = pack::verify(&args.out, &reports, &paths, &options)?;
    answer.members.verify = Some(envelope(&verdicts, &now()));
    if let Err(refusal) = refused(&verdicts) {
        return Ok(Err(refusal));
    }
    if input.final_verdict.is_empty() {
        input.final_verdict = final_verdict(&paths, &verdicts);
    }
    input.reports = reports;
    let files = build(input, key.as_ref())?;
    pack::write_directory(&args.out, &files)?;
    if let Some(archive) = &args.archive {
        pack::write_archive(archive, &files)?;
    }
    Ok(Ok(describe(args, &files, key.as_ref(), answer)))
}

/// What the result says of the pack.
fn describe<'a>(
    args: &'a BuildPackArgs,
    files: &PackFiles,
    key: Option<&SigningKey>,
    answer: &mut Answer<'_, BuildMembers<'a>>,
) -> Vec<String> {
    let fingerprint = key.map(|key| key.public().fingerprint());
    let (hashed, level) =
        Inspection::of(files).map_or((0, None), |found| (found.hashed, found.manifest.evidence_level));
    answer.members.reports = Total { total: args.reports.len() };
    answer.members.built = Some(BuiltPack {
        evidence_level: level,
        archive: args.archive.as_deref().map(ShownPath),
        files: BuiltFiles { hashed, manifest: MANIFEST, checksums: CHECKSUMS },
        signature: BuiltSignature {
            present: key.is_some(),
            file: key.map(|_| SIGNATURE),
            signer_fingerprint: fingerprint.clone(),
        },
    });
    if key.is_none() {
        answer
            .warnings
            .push("the pack is not signed and will not verify; build it with --signing-key".to_owned());
    }
    let mut lines = vec![format!("{} files, {} reports", files.len(), args.reports.len())];
    lines.extend(fingerprint.map(|key| format!("signed by {key}")));
    lines.extend(args.archive.iter().map(|archive| format!("archive {}", archive.display())));
    lines
}

/// The files besides the reports. The final verdict is empty if it has to be generated.
fn input(args: &BuildPackArgs) -> Result<BuildInput> {
    let optional = |path: &Option<std::path::PathBuf>| path.as_deref().map(read_object).transpose();
    let material = |(name, path): &(String, std::path::PathBuf)| {
        Ok(Material { name: name.clone(), bytes: read_object(path)? })
    };
    Ok(BuildInput {
        reports: PackFiles::default(),
        count: args.reports.len(),
        final_verdict: optional(&args.final_verdict)?.unwrap_or_default(),
        source_repo: optional(&args.source_repo)?,
        environment: optional(&args.environment)?,
        materials: args.materials.iter().map(material).collect::<Result<_>>()?,
        readme: args.readme.as_deref().map(read).transpose()?,
        profile: args.reports_as.profile.clone(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = read_evidence(path, REPORT_LIMIT).map_err(|why| Error::input(why.to_string()));
    bytes.with_context(|| format!("reading {}", path.display()))
}

/// A file that is a JSON object.
fn read_object(path: &Path) -> Result<Vec<u8>> {
    let bytes = read(path)?;
    object(&path.to_string_lossy(), &bytes)?;
    Ok(bytes)
}

/// The verdict of a pack whose reports all verified.
fn final_verdict(paths: &[String], verdicts: &[Verdict]) -> Vec<u8> {
    let report = |(path, verdict): (&String, &Verdict)| ReportVerdict {
        path: path.clone(),
        assurance: verdict.assurance.as_str().to_owned(),
        ratio_vs_baseline: verdict.summary.as_ref().and_then(|summary| summary.ratio),
    };
    FinalVerdict::passed(paths.iter().zip(verdicts).map(report).collect()).to_bytes()
}
