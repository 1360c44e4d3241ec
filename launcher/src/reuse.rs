//! A measured baseline used again (`--baseline-report`): accepted only when its runtime manifest binds it and says that
//! the very checkpoint of this command was measured by the very image of this command.

use crate::error::{Error, Kind, Result};
use crate::plan::Plan;
use crate::side::Side;
use invarlock_evidence::format::untrusted::Node;
use invarlock_evidence::json::parse_run_report;
use invarlock_evidence::numerics::digest::{canonical_json, sha256_hex};
use invarlock_evidence::run_report::RunReport;
use invarlock_evidence::verify::{
    MANIFEST_LIMIT, RUN_REPORT_LIMIT, container_faults, read_evidence, runtime_verify_bytes,
};
use serde_json::Value;
use std::path::Path;

/// Reads and checks the run report at `path` for use in `plan`.
pub fn baseline(path: &Path, plan: &Plan) -> Result<Side> {
    let doing = format!("reusing --baseline-report {}", path.display());
    let input = |why: String| Error::input(format!("{doing}: {why}"));
    let read = |path: &Path, limit| {
        read_evidence(path, limit).map_err(|e| format!("reading {}: {e}", path.display()))
    };
    let bytes = read(path, RUN_REPORT_LIMIT).map_err(&input)?;
    let manifest_path = path.with_file_name(crate::bundle::MANIFEST);
    let manifest_bytes = read(&manifest_path, MANIFEST_LIMIT).map_err(|why| {
        input(format!(
            "{why}; without its manifest nothing says what was measured: measure the baseline again"
        ))
    })?;
    let verdict = runtime_verify_bytes(path, &bytes, &manifest_path, &manifest_bytes, None);
    if let Some(why) = verdict.errors.first() {
        return Err(Error::new(
            Kind::Integrity,
            format!("{doing}: its manifest does not hold: {why}; measure the baseline again"),
        ));
    }
    let manifest: Value = serde_json::from_slice(&manifest_bytes)
        .map_err(|e| input(format!("{}: {e}", manifest_path.display())))?;
    let report = parse_run_report("a run report", &bytes).map_err(|e| input(e.to_string()))?;
    same_measurement(&report, &manifest, plan)
        .map_err(|why| input(format!("[INVARLOCK:E222] {why}; measure the baseline again")))?;
    let side = Node::root("", &manifest).at("context.sides.baseline");
    if plan.image.is_some()
        && let Some(why) = container_faults("context.sides.baseline", side.value()).first()
    {
        // The evaluation report would not verify; measuring the subject first would waste its time.
        return Err(Error::new(
            Kind::Integrity,
            format!("{doing}: its manifest does not hold: {why}; measure the baseline again"),
        ));
    }
    let refused = side.get("refused").value();
    let refused = serde_json::from_value(refused.clone()).unwrap_or_default();
    let mut evidence = side.object().cloned().unwrap_or_default();
    evidence.insert("reused".to_owned(), Value::Bool(true));
    evidence.insert("report_sha256".to_owned(), Value::String(sha256_hex(&bytes)));
    Ok(Side { report, path: path.to_path_buf(), sha256: sha256_hex(&bytes), evidence, refused })
}

/// Says what differs from what this command would measure.
fn same_measurement(report: &RunReport, manifest: &Value, plan: &Plan) -> std::result::Result<(), String> {
    let manifest = Node::root("", manifest);
    let context = manifest.get("context");
    let side = context.at("sides.baseline");
    let text = |node: Node<'_>| node.str().unwrap_or("nothing").to_owned();
    let image =
        plan.image.as_ref().map_or_else(|| "nothing".to_owned(), |i| i.resolved.manifest_digest.to_string());
    let pairs = [
        (
            "edit",
            report.edit.get("name").map_or_else(|| "nothing".into(), |name| text(Node::root("", name))),
            "noop".to_owned(),
        ),
        ("adapter", report.meta.adapter.clone(), "hf_causal".into()),
        ("profile", text(context.get("profile")), plan.profile.to_string()),
        ("tier", text(context.get("tier")), plan.tier.to_string()),
        (
            "checkpoint digest",
            text(side.at("checkpoint.tree_sha256")),
            plan.baseline.digest.tree_sha256.clone(),
        ),
        ("dataset", canonical_json(context.get("dataset").value()), canonical_json(&plan.dataset_settings())),
        ("filter digest", text(side.get("filter_digest")), plan.filter.digest.clone()),
        ("image digest", text(manifest.at("runtime.image_digest")), image),
    ];
    match pairs.into_iter().find(|(_, was, is)| was != is) {
        Some((what, was, is)) => Err(format!("its {what} is {was}, this command's is {is}")),
        None => Ok(()),
    }
}
