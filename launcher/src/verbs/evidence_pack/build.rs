//! `invarlock advanced evidence-pack build`.

use super::verify::refused;
use super::{Answer, report_options};
use crate::args::BuildPackArgs;
use crate::error::{Context as _, Error, Result};
use crate::pack::object;
use crate::record::now;
use crate::{keys, pack};
use invarlock_evidence::format::to_value;
use invarlock_evidence::pack::{
    BuildInput, FinalVerdict, Inspection, Material, PackFiles, Refusal, ReportVerdict, SIGNATURE, Stage, build,
    check_material_name, report_path,
};
use invarlock_evidence::signing::keys::SigningKey;
use invarlock_evidence::verify::{REPORT_LIMIT, Verdict, envelope, read_evidence};
use serde_json::json;
use std::path::Path;

/// Exits 4 if an input is missing or malformed, 7 if a report does not verify.
pub(super) fn run(args: &BuildPackArgs) -> Result<u8> {
    for path in [Some(&args.out), args.archive.as_ref()].into_iter().flatten() {
        if path.symlink_metadata().is_ok() {
            return Err(Error::input(format!("{} exists", path.display())))
                .hint("choose another name; packs are never replaced");
        }
    }
    args.materials.iter().try_for_each(|(name, _)| check_material_name(name))?;
    let mut answer = Answer::new(args.json, "evidence-pack-build-v1", &args.out);
    answer.set("reports", json!({"total": 0}));
    answer.set("profile", args.reports_as.profile.clone());
    answer.set("report_assurance", "report");
    let result = build_pack(args, &mut answer)?;
    Ok(answer.print("PACK BUILT", result))
}

/// Builds the pack; the outer error is one of usage or of this machine.
fn build_pack(args: &BuildPackArgs, answer: &mut Answer<'_>) -> Result<Result<Vec<String>, Refusal>> {
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
    answer.set("verify", to_value(&envelope(&verdicts, &now())));
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
fn describe(
    args: &BuildPackArgs,
    files: &PackFiles,
    key: Option<&SigningKey>,
    answer: &mut Answer<'_>,
) -> Vec<String> {
    let fingerprint = key.map(|key| key.public().fingerprint());
    let (hashed, level) =
        Inspection::of(files).map_or((0, None), |found| (found.hashed, found.manifest.evidence_level));
    answer.set("reports", json!({"total": args.reports.len()}));
    answer.set("evidence_level", level);
    answer.set("archive", json!(args.archive));
    answer.set(
        "files",
        json!({"hashed": hashed, "manifest": "manifest.json", "checksums": "checksums.sha256"}),
    );
    answer.set(
        "signature",
        json!({
            "present": key.is_some(), "file": key.map(|_| SIGNATURE), "signer_fingerprint": fingerprint,
        }),
    );
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
