//! `invarlock advanced evidence-pack inspect`.

use super::Answer;
use crate::args::InspectPackArgs;
use crate::error::Result;
use crate::pack;
use invarlock_evidence::pack::{Inspection, Refusal, Signer, Stage};
use serde_json::json;

/// Exits 3, 4 or 6 like a verification without keys and reports.
pub(super) fn run(args: &InspectPackArgs) -> Result<u8> {
    let mut answer = Answer::new(args.json, "evidence-pack-inspect-v1", &args.pack);
    let result = inspect(args, &mut answer);
    Ok(answer.print("PACK", result))
}

fn inspect(args: &InspectPackArgs, answer: &mut Answer<'_>) -> Result<Vec<String>, Refusal> {
    let files = pack::read(&args.pack)?;
    let found = Inspection::of(&files)?;
    let (faults, signature) = (found.integrity_faults(), found.signature_fault(&[]));
    let present = found.signer != Signer::None;
    let level = &found.manifest.evidence_level;
    answer.set("manifest", json!({"valid": true, "format": found.manifest.format, "evidence_level": level}));
    answer.set(
        "signature",
        json!({
            "present": present, "valid": signature.is_none(), "signer_fingerprint": found.fingerprint(),
        }),
    );
    answer.set("reports", json!({"total": found.reports.len(), "paths": found.reports}));
    answer.set("artifacts", json!({"files": files.len(), "hashed": found.hashed}));
    answer.set(
        "integrity",
        json!({
            "checksums_bound": found.checksums_bound,
            "checksums_ok": found.checksum_faults.is_empty(),
            "control_file_mirrors_ok": found.mirror_faults.is_empty(),
            "manifest_provenance_ok": found.reference_faults.is_empty(),
            "extra_files": found.extra_files,
        }),
    );
    answer.set("strict_ready", faults.is_empty() && signature.is_none());
    answer.set("evidence_level", level.clone());
    let issues: Vec<&String> = faults.iter().chain(&signature).collect();
    answer.set("issues", json!(issues));
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
