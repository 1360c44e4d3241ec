//! `invarlock report html`: renders a report and its manifest as one self-contained page.

use crate::args::HtmlArgs;
use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::{MANIFEST, write_output};
use crate::ui;
use invarlock_evidence::{host_execution, html, verify};
use serde_json::Value;
use std::path::Path;

/// Exits 2 for an invalid evaluation report, and 1 when the output exists and `--force` was not passed.
pub fn run(args: &HtmlArgs) -> Result<u8> {
    let output = &args.output;
    let verify::OpenReport { path: report_path, report, sha256 } = verify::open_report(&args.input)?;
    let manifest_path = report_path.with_file_name(MANIFEST);
    let manifest = verify::open_manifest(&manifest_path)?;
    let bound =
        |manifest: &Value| manifest.pointer("/report/sha256").and_then(Value::as_str) == Some(&sha256);
    let page = match &manifest {
        Some(other) if !bound(other) => html::render_unbound(&report)?,
        manifest => html::render(&report, manifest.as_ref())?,
    };
    if [&report_path, &manifest_path].into_iter().any(|path| is_same_file(path, output)) {
        return Err(Error::input(format!("writing {}: the file is part of the evidence", output.display())))
            .hint("choose another output file");
    }
    write_output(output, page.as_bytes(), args.force)?;
    if let Some(sentence) = host_execution::recorded(&report, manifest.as_ref()) {
        ui::on_stderr(&ui::host_execution_on_stderr(&sentence));
    }
    ui::out(&output.display().to_string());
    Ok(0)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let resolved = (std::fs::canonicalize(one), std::fs::canonicalize(other));
    matches!(resolved, (Ok(one), Ok(other)) if one == other)
}
