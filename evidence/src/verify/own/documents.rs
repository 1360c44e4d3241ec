//! Reads the evaluation report and both run reports: the files are hashed and parsed by two threads.

use super::consistent::Consistent;
use super::{Files, sha256_hex};
use crate::compare;
use crate::evaluation::{BASELINE_REPORT, Facts, SUBJECT_REPORT};
use crate::format::evaluation_report::EvaluationReport;
use crate::format::run_report::RunReport;
use crate::format::{canonical, to_value};
use crate::job::Role;
use crate::json as strict;
use crate::verify::differences::differences;
use crate::verify::read::{RUN_REPORT_LIMIT, read_evidence};
use invarlock_error::{Context as _, Error, Result};

/// The three documents of an evaluation.
pub(super) struct Documents {
    pub(super) report: Document<EvaluationReport>,
    /// The baseline's run report, and its values.
    pub(super) baseline: Document<(RunReport, Result<Consistent>)>,
    pub(super) subject: Document<RunReport>,
}

/// A document, and what is wrong with its file.
pub(super) struct Document<T> {
    content: Result<T>,
    faults: Vec<String>,
}

impl<T> Document<T> {
    fn read(read: impl FnOnce(&mut Vec<String>) -> Result<T>) -> Self {
        let mut faults = Vec::new();
        let content = read(&mut faults);
        Self { content, faults }
    }

    /// The content; what is wrong with the file is added to `faults`.
    pub(super) fn unpack(self, faults: &mut Vec<String>) -> Result<T> {
        faults.extend(self.faults);
        self.content
    }
}

/// Reads the documents.
pub(super) fn read(files: &Files<'_>, facts: &Facts) -> Documents {
    std::thread::scope(|scope| {
        let baseline = scope.spawn(|| {
            Document::read(|faults| {
                let report = run_report(files, facts, Role::Baseline, BASELINE_REPORT, faults)?;
                let consistent = Consistent::check(Role::Baseline, &report, None);
                Ok((report, consistent))
            })
        });
        Documents {
            report: Document::read(|faults| report(files.report, faults)),
            subject: Document::read(|faults| run_report(files, facts, Role::Subject, SUBJECT_REPORT, faults)),
            baseline: baseline.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        }
    })
}

/// The recorded report, if it is written as this program writes it.
fn report(bytes: &[u8], faults: &mut Vec<String>) -> Result<EvaluationReport> {
    strict::check_size("evaluation.report.json", bytes)?;
    if let Some(report) = canonical::read(bytes) {
        return Ok(report);
    }
    let report: EvaluationReport = serde_json::from_slice(bytes)
        .map_err(|why| Error::input(why.to_string()))
        .context("reading evaluation.report.json")?;
    if compare::to_bytes(&report) != bytes {
        faults.push(
            "evaluation.report.json is not written as this program writes it: members, order or spelling differ"
                .to_owned(),
        );
    }
    Ok(report)
}

/// The run report of one side, which lies beside the evaluation report.
fn run_report(
    files: &Files<'_>,
    facts: &Facts,
    role: Role,
    name: &str,
    faults: &mut Vec<String>,
) -> Result<RunReport> {
    let path = files.path.with_file_name(name);
    let bytes = read_evidence(&path, RUN_REPORT_LIMIT).map_err(|why| match why.kind() {
        std::io::ErrorKind::NotFound => Error::integrity(format!(
            "{name} is missing: it must be in the same directory as the evaluation report"
        )),
        _ => Error::input(format!("reading {name}: {why}")),
    })?;
    let output = facts.run_report(role)?;
    let (actual, stated) = (sha256_hex(&bytes), &output.sha256);
    if output.bytes != bytes.len() as u64 {
        faults.push(format!("{name} has {} bytes, its container wrote {}", bytes.len(), output.bytes));
    }
    if actual != *stated {
        faults.push(format!(
            "{name} was changed, or is not the report of this manifest: its SHA-256 is {actual}, \
             context.sides.{}.outputs has {stated}",
            role.name()
        ));
    }
    strict::check_size(name, &bytes)?;
    if let Some(report) = canonical::read(&bytes) {
        return Ok(report);
    }
    let report = strict::parse_run_report(name, &bytes)?;
    if compare::to_bytes(&report) != bytes {
        // Another program may write it otherwise, but not with other members.
        let recorded = strict::parse(name, &bytes)?;
        faults.extend(differences(name, &recorded, &to_value(&report), 0.0));
    }
    Ok(report)
}
