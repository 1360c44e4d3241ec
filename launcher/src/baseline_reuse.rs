//! Reuse of a measured baseline (`--baseline-report`). The run report is accepted only if its runtime manifest contains its digest, and if
//! checkpoint, image, dataset, profile, tier and filter in the manifest are those of this command.

use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::MANIFEST;
use crate::measure_side::Side;
use crate::plan::Plan;
use invarlock_evidence::format::compute_dtype::ComputeDtype;
use invarlock_evidence::format::guard_request::GuardRequest;
use invarlock_evidence::format::runtime_manifest as manifest;
use invarlock_evidence::format::to_value;
use invarlock_evidence::format::untrusted::Node;
use invarlock_evidence::json::parse_run_report;
use invarlock_evidence::numerics::digest::{canonical_json, sha256_hex};
use invarlock_evidence::run_report::RunReport;
use invarlock_evidence::verify::{
    MANIFEST_LIMIT, RUN_REPORT_LIMIT, container_faults, read_evidence, runtime_verify_bytes,
};
use serde_json::Value;
use std::path::Path;

/// What the user can do about a baseline that cannot be reused.
const MEASURE_AGAIN: &str = "measure the baseline again: leave out --baseline-report";

/// Reads and checks the run report at `path` for use in `plan`.
pub fn baseline(path: &Path, plan: &Plan) -> Result<Side> {
    let result = read(path, plan).with_context(|| format!("reusing --baseline-report {}", path.display()));
    result.hint(MEASURE_AGAIN)
}

fn read(path: &Path, plan: &Plan) -> Result<Side> {
    let manifest_path = path.with_file_name(MANIFEST);
    let bytes = read_file(path, RUN_REPORT_LIMIT)?;
    refuse_evaluation_report(&bytes)?;
    let manifest_bytes = read_file(&manifest_path, MANIFEST_LIMIT)?;
    refuse_copy(&bytes, &manifest_bytes)?;
    let verdict = runtime_verify_bytes(path, &bytes, &manifest_path, &manifest_bytes, None);
    if let Some(why) = verdict.errors.first() {
        return Err(Error::integrity(format!("its runtime manifest does not verify: {why}")));
    }
    let recorded: Value = serde_json::from_slice(&manifest_bytes)
        .map_err(|e| Error::input(format!("reading {}: {e}", manifest_path.display())))?;
    let report = parse_run_report("the run report", &bytes).map_err(|e| Error::input(e.to_string()))?;
    same_measurement(&report, &recorded, plan)?;
    let evidence = Node::root("", &recorded).at("context.sides.baseline").value();
    // Verification of the new report would find these faults too, but only after the subject was measured.
    if plan.image.is_some()
        && let Some(why) = container_faults("context.sides.baseline", evidence).first()
    {
        return Err(Error::integrity(format!("its runtime manifest does not verify: {why}")));
    }
    let measured: manifest::Side = serde_json::from_value(evidence.clone()).map_err(|why| {
        Error::input(format!("context.sides.baseline of {}: {why}", manifest_path.display()))
    })?;
    let report_path = path.to_string_lossy().into_owned();
    let evidence = manifest::Side { reused: true, report_path, ..measured };
    Ok(Side { report, path: path.to_path_buf(), bytes, evidence })
}

/// The manifest next to an evaluation report binds that report. Without this check, the error would name a missing member of a run report.
fn refuse_evaluation_report(bytes: &[u8]) -> Result<()> {
    // Invalid JSON is reported by the caller.
    let report: Value = serde_json::from_slice(bytes).unwrap_or_default();
    match report.get("validation").is_some_and(Value::is_object) {
        true => Err(Error::input("it is an evaluation report, not a run report"))
            .hint("pass the run report of the baseline, such as runs/source/<time>/report.json"),
        false => Ok(()),
    }
}

/// The copy of a run report beside an evaluation report has no manifest of its own.
fn refuse_copy(report: &[u8], manifest: &[u8]) -> Result<()> {
    // An invalid manifest is reported by the caller.
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let manifest = Node::root("", &manifest);
    let side = manifest.at("context.sides.baseline");
    let sha256 = sha256_hex(report);
    let mut outputs = side.get("outputs").elements().filter_map(|output| output.get("sha256").str());
    let copy = manifest.at("report.sha256").str() != Some(&sha256) && outputs.any(|output| output == sha256);
    if !copy {
        return Ok(());
    }
    let original =
        crate::ui::printable(side.get("report_path").str().unwrap_or("runs/source/<time>/report.json"));
    Err(Error::input(format!(
        "it is the copy beside an evaluation report, which has no manifest of its own; pass the original, {original}"
    )))
}

fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    read_evidence(path, limit).map_err(|e| Error::input(format!("reading {}: {e}", path.display())))
}

/// Fails when the baseline was not measured as this command would measure it.
fn same_measurement(report: &RunReport, manifest: &Value, plan: &Plan) -> Result<()> {
    let manifest = Node::root("", manifest);
    let (context, side) = (manifest.get("context"), manifest.at("context.sides.baseline"));
    let text = |node: Node<'_>| node.str().unwrap_or("nothing").to_owned();
    let edit = report.edit.get("name").map_or_else(|| "nothing".into(), |name| text(Node::root("", name)));
    if edit != "noop" {
        return Err(Error::input(
            "it is the run report of a subject, but the run report of a baseline is needed",
        ))
        .hint("pass the run report of the baseline, such as runs/source/<time>/report.json");
    }
    let guards = |request: &Value| text(Node::root("", request).get("mode"));
    let planned_guards = guards(&to_value(&plan.request.guards));
    let default = to_value(&GuardRequest::default());
    let measured_guards = guards(report.context.get("guards").unwrap_or(&default));
    let evaluator = report.meta.more.get("evaluator");
    let measured_dtype = evaluator.and_then(|evaluator| evaluator.get("compute_dtype")?.as_str());
    let measured_dtype = measured_dtype.unwrap_or_else(|| ComputeDtype::default().name()).to_owned();
    // Older evaluators left them out without being asked.
    let measured_inputs = context.at("plan.content.weight_only").bool() == Some(true)
        || evaluator.is_some_and(|evaluator| evaluator.get("omitted_activations").is_some());
    let inputs = |weight_only| if weight_only { "float32" } else { "as config.json asks" }.to_owned();
    let image = plan.image.as_ref();
    let image =
        image.map_or_else(|| "nothing".to_owned(), |image| image.resolved.manifest_digest.to_string());
    let pairs = [
        ("profile", text(context.get("profile")), plan.request.profile.to_string()),
        ("tier", text(context.get("tier")), plan.request.tier.to_string()),
        ("mode of the guards", measured_guards, planned_guards),
        (
            "checkpoint digest",
            text(side.at("checkpoint.tree_sha256")),
            plan.digests.baseline.tree_sha256.clone(),
        ),
        (
            "dataset",
            canonical_json(context.get("dataset").value()),
            canonical_json(&to_value(&plan.dataset_settings())),
        ),
        ("type of numbers", measured_dtype, plan.request.dtype.name().to_owned()),
        ("inputs of layers", inputs(measured_inputs), inputs(plan.request.weight_only)),
        ("filter digest", text(side.get("filter_digest")), plan.filter.digest.clone()),
        ("image digest", text(manifest.at("runtime.image_digest")), image),
    ];
    match pairs.into_iter().find(|(_, was, is)| was != is) {
        Some((what, was, is)) => {
            Err(Error::input(format!("its {what} is {was}, but this command's is {is}")))
        }
        None => Ok(()),
    }
}
