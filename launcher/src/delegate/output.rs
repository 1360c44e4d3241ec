//! What the program left in `/out`. All of it is kept in a directory of the run below `--out`; only the report goes to `--report-out`, with the
//! manifest of this program.

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::evidence_dir::{Evidence, RunDir};
use crate::policy::Policy;
use crate::record;
use crate::recorded::typed;
use crate::ui::printable;
use invarlock_evidence::delegated::{DelegatedFacts, OF_REPORT, OF_RUNS, REPORT};
use invarlock_evidence::evaluation::RUN_REPORT;
use invarlock_evidence::format::delegated::DelegatedRun;
use invarlock_evidence::format::plan::File;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::verify::REPORT_LIMIT;
use invarlock_evidence::{json, manifest};
use invarlock_runtime::Outcome;
use serde_json::json;
use std::path::{Path, PathBuf};

/// What stands before the names of the baseline's run artifacts.
const BASELINE_RUNS: &str = "runs/source/";
/// Directory of the runs below `--out`.
const DIRECTORY: &str = "delegate";

/// What a run left, in a directory.
pub struct Left {
    /// Its final path.
    pub directory: PathBuf,
}

impl Left {
    /// Keeps everything that the program left. None if it left nothing.
    pub fn keep(plan: &Plan, outcome: &Outcome) -> Result<Option<Self>> {
        if outcome.output.is_empty() {
            return Ok(None);
        }
        let run_dir = RunDir::begin(plan.out(), DIRECTORY)?;
        for file in &outcome.output {
            run_dir.write_below(&file.name, &file.bytes)?;
        }
        let directory = run_dir.target().to_owned();
        run_dir.commit()?;
        Ok(Some(Self { directory }))
    }

    /// The run report of the baseline that the program measured.
    pub fn baseline_report(&self, outcome: &Outcome) -> Option<PathBuf> {
        let mut names = outcome.output.iter().map(|file| &file.name).filter(|name| {
            name.strip_prefix(BASELINE_RUNS).is_some_and(|rest| rest.ends_with(&format!("/{RUN_REPORT}")))
        });
        match (names.next(), names.next()) {
            (Some(name), None) => Some(self.directory.join(name)),
            _ => None,
        }
    }

    /// Writes the evidence; gives the paths of report and manifest.
    pub fn evidence(
        &self,
        plan: &Plan,
        policy: &Policy,
        outcome: &Outcome,
        started_at: &str,
    ) -> Result<(PathBuf, PathBuf)> {
        let report = report(plan, outcome)?;
        let path = plan.report_out().join(crate::evidence_dir::REPORT);
        let facts = self.facts(plan, policy, outcome, started_at, &path)?;
        let manifest = manifest::to_bytes(&facts.manifest(&sha256_hex(report)));
        let evidence =
            Evidence { report, run_reports: None, manifest: &manifest, attestation: None, lock: None };
        evidence.write(plan.report_out())
    }

    fn facts(
        &self,
        plan: &Plan,
        policy: &Policy,
        outcome: &Outcome,
        started_at: &str,
        report: &Path,
    ) -> Result<DelegatedFacts> {
        let outputs = outcome.output.iter().map(|file| File {
            name: file.name.clone(),
            sha256: sha256_hex(&file.bytes),
            bytes: file.bytes.len() as u64,
        });
        Ok(DelegatedFacts {
            plan: plan.recorded.clone(),
            started_at: started_at.to_owned(),
            finished_at: record::now(),
            launcher: record::launcher(policy)?,
            machine: record::machine(),
            run: DelegatedRun {
                directory: self.directory.to_string_lossy().into_owned(),
                outputs: outputs.collect(),
                filter_digest: plan.filter_digest().to_owned(),
                refused: outcome.denied_calls.clone(),
                status: typed("how a run ended", json!(outcome.status))?,
                observations: typed("what was observed of a run", json!(outcome.observations))?,
                usage: typed("what a run used", json!(outcome.usage))?,
            },
            report_path: record::absolute(report)?,
        })
    }
}

/// The bytes of the report in the output, which is untrusted. Fails where it is missing or no evaluation report, or where the output has files at
/// other places.
fn report<'o>(plan: &Plan, outcome: &'o Outcome) -> Result<&'o [u8]> {
    let image = plan.reference();
    let known = |name: &str| name.starts_with(OF_REPORT) || name.starts_with(OF_RUNS);
    if let Some(file) = outcome.output.iter().find(|file| !known(&file.name)) {
        let name = printable(&file.name);
        return Err(Error::integrity(format!(
            "the program of image {image} left a file {name:?} outside runs/ and report/"
        )));
    }
    let report = outcome.output.iter().find(|file| file.name == REPORT).ok_or_else(|| {
        Error::integrity(format!(
            "the program of image {image} ended with exit code 0 and left no evaluation.report.json"
        ))
    })?;
    let wrong = |why: &str| {
        Err(Error::integrity(format!(
            "the evaluation.report.json that the program of image {image} left {why}"
        )))
    };
    if report.bytes.len() as u64 > REPORT_LIMIT {
        return wrong(&format!("is larger than {REPORT_LIMIT} bytes"));
    }
    match json::parse("the report", &report.bytes) {
        Err(error) => wrong(&format!("cannot be read: {error}")),
        Ok(value) if value.get("validation").is_some_and(serde_json::Value::is_object) => Ok(&report.bytes),
        Ok(_) => wrong("is not an evaluation report: it has no `validation`"),
    }
}
