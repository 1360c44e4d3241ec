//! The reports of a pack: collected from evidence, and verified from the bytes that were read.

use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::{MANIFEST, REPORT};
use invarlock_evidence::json;
use invarlock_evidence::pack::{FILE_LIMIT, PackFiles, SIDE_FILES, report_path};
use invarlock_evidence::verify::{REPORT_LIMIT, Verdict, VerifyOptions, read_evidence, verify_report};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// How reports are verified.
pub type ReportOptions = VerifyOptions;

/// The files of the reports, at their paths in a pack.
pub fn collect(reports: &[PathBuf]) -> Result<PackFiles> {
    let mut files = PackFiles::default();
    for (index, path) in reports.iter().enumerate() {
        let report = if path.is_dir() { path.join(REPORT) } else { path.clone() };
        let reading = || format!("reading {}", report.display());
        let bytes = read_evidence(&report, REPORT_LIMIT).map_err(|why| Error::input(why.to_string()));
        let bytes = bytes.with_context(reading)?;
        object(REPORT, &bytes).with_context(reading)?;
        files.insert(&report_path(index + 1, REPORT), bytes)?;
        for name in SIDE_FILES {
            let beside = report.with_file_name(name);
            match read_evidence(&beside, FILE_LIMIT) {
                Ok(bytes) => files.insert(&report_path(index + 1, name), bytes)?,
                Err(why) if why.kind() == ErrorKind::NotFound && name != MANIFEST => {}
                Err(why) => {
                    return Err(Error::input(why.to_string()))
                        .with_context(|| format!("reading {}", beside.display()));
                }
            }
        }
    }
    Ok(files)
}

/// Refuses bytes that are not a JSON object.
pub fn object(name: &str, bytes: &[u8]) -> Result<()> {
    match json::parse(name, bytes)?.is_object() {
        true => Ok(()),
        false => Err(Error::input(format!("{name} is not a JSON object"))),
    }
}

/// Verifies the reports at these paths of a pack. `pack` is how the user named it.
///
/// The verifier reads files: those of each report are written to a private directory, under names of this program.
pub fn verify(
    pack: &Path,
    files: &PackFiles,
    reports: &[String],
    options: &ReportOptions,
) -> Result<Vec<Verdict>> {
    let verified = reports.iter().map(|report| {
        let private = tempfile::tempdir().context("creating a private directory for a report")?;
        let above = report.strip_suffix(REPORT).unwrap_or_default();
        for name in [REPORT].into_iter().chain(SIDE_FILES) {
            if let Some(bytes) = files.get(&format!("{above}{name}")) {
                let path = private.path().join(name);
                std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
            }
        }
        let mut verdict = verify_report(&private.path().join(REPORT), options);
        let shown =
            |text: &str| text.replace(&*private.path().to_string_lossy(), above.trim_end_matches('/'));
        verdict.path = pack.join(report);
        verdict.errors.iter_mut().for_each(|error| *error = shown(error));
        if let Some(stopped) = &mut verdict.stopped_by {
            stopped.message = shown(&stopped.message);
        }
        Ok(verdict)
    });
    verified.collect()
}
