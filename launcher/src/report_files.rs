//! What the verbs of `invarlock report` read and write: a report with the manifest beside it, and an output that is no part of it.

use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::{MANIFEST, write_output};
use crate::ui;
use invarlock_evidence::beside::Beside;
use invarlock_evidence::evaluation::BASELINE_REPORT;
use invarlock_evidence::verify::RUN_REPORT_LIMIT;
use invarlock_evidence::window_texts::WindowTexts;
use invarlock_evidence::{host_execution, verify};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A report and the manifest beside it. Both are valid by their form, and unverified.
pub struct ReportFiles {
    path: PathBuf,
    manifest_path: PathBuf,
    /// The report.
    pub report: Value,
    /// SHA-256 of its bytes.
    pub sha256: String,
    manifest: Option<Value>,
}

impl ReportFiles {
    /// Reads the report that a file or a directory names. An error of kind input unless it is valid by its schema.
    pub fn open(path: &Path) -> Result<Self> {
        let verify::OpenReport { path, report, sha256 } = verify::open_report(path)?;
        let manifest_path = path.with_file_name(MANIFEST);
        let manifest = verify::open_manifest(&manifest_path)?;
        Ok(Self { path, manifest_path, report, sha256, manifest })
    }

    /// The manifest, if it is that of the report.
    pub fn beside(&self) -> Beside<'_> {
        Beside::new(self.manifest.as_ref(), &self.sha256)
    }

    /// The texts of the final windows, if the baseline's run report lies beside the report.
    pub fn texts(&self) -> WindowTexts {
        let baseline = verify::read_evidence(&self.path.with_file_name(BASELINE_REPORT), RUN_REPORT_LIMIT);
        // They only explain the numbers: without the file, they are unknown.
        baseline.map_or_else(|_| WindowTexts::default(), |bytes| WindowTexts::of(&self.report, &bytes))
    }

    /// The sentence about host execution.
    pub fn host_execution(&self) -> Option<String> {
        host_execution::recorded(&self.report, self.beside().manifest())
    }

    /// Writes an output: to standard output if its name is `-`, else to a file, whose path is printed.
    pub fn write(&self, output: &Path, bytes: &[u8], force: bool) -> Result<()> {
        if output == Path::new("-") {
            ui::out_bytes(bytes);
            return Ok(());
        }
        if [&self.path, &self.manifest_path].into_iter().any(|path| is_same_file(path, output)) {
            return Err(Error::input(format!(
                "writing {}: the file is part of the evidence",
                output.display()
            )))
            .hint("choose another output file");
        }
        write_output(output, bytes, force)?;
        ui::out(&ui::printable(&output.to_string_lossy()));
        Ok(())
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let resolved = (std::fs::canonicalize(one), std::fs::canonicalize(other));
    matches!(resolved, (Ok(one), Ok(other)) if one == other)
}
