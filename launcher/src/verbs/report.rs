//! `invarlock report html`: one self-contained page of a report and its manifest.

use crate::bundle::{self, MANIFEST};
use crate::error::{Error, Result};
use crate::ui;
use invarlock_evidence::{html, verify};
use std::path::Path;

/// Renders the page. 2: not a valid evaluation report; 1: the output exists without `--force`.
pub fn html(input: &Path, output: &Path, force: bool) -> Result<u8> {
    let (path, report) = verify::open_report(input)?;
    let manifest = verify::open_manifest(&path.with_file_name(MANIFEST))?;
    let page = html::render(&report, manifest.as_ref())?;
    let evidence = [path.clone(), path.with_file_name(MANIFEST)];
    let same = |p: &std::path::PathBuf| {
        std::fs::canonicalize(p).is_ok_and(|e| std::fs::canonicalize(output).is_ok_and(|o| o == e))
    };
    if evidence.iter().any(same) {
        return Err(Error::input(format!(
            "writing {}: that is the evidence itself; choose another file",
            output.display()
        )));
    }
    bundle::write_output(output, page.as_bytes(), force)?;
    ui::out(&output.display().to_string());
    Ok(0)
}
