//! `invarlock report generate`: renders or copies the evaluation of a run report, with the options and file names of the Python package.
//!
//! The Python package makes an evaluation report from run reports alone. Here it also needs the facts in the runtime manifest, so that the
//! evidence is read from beside the run report. It is checked as by `verify`, on the bytes that are written, and must not contradict itself.

use crate::args::{GenerateArgs, GenerateFormat};
use crate::demands::consistency;
use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::{MANIFEST, REPORT, output_exists, write_output};
use crate::{pack, ui};
use invarlock_evidence::beside::Beside;
use invarlock_evidence::evaluation::{BASELINE_REPORT, SUBJECT_REPORT};
use invarlock_evidence::export::{self, Summary};
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::pack::{PackFiles, report_path};
use invarlock_evidence::verify::{RUN_REPORT_LIMIT, read_evidence};
use invarlock_evidence::{html, json};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Exits 2 if the run report is not that of an evaluation, 3 if the evidence contradicts itself, and 1 when an output exists and `--force`
/// was not passed.
pub fn run(args: &GenerateArgs) -> Result<u8> {
    let evidence = Evidence::open(&args.run)?;
    for (option, path) in [
        ("--baseline-run-report", &args.baseline_run_report),
        ("--compare-run-report", &args.compare_run_report),
    ] {
        if let Some(path) = path {
            evidence.require(option, path, BASELINE_REPORT, "baseline")?;
        }
    }
    if !args.run.is_dir() {
        evidence.require("--run", &args.run, SUBJECT_REPORT, "subject")?;
    }
    evidence.check()?;
    let directory = args.output.clone().unwrap_or_else(|| default_output(&args.run));
    let files = evidence.outputs(args.format)?;
    // Not one file of a new output beside those of another one.
    let mut paths = files.iter().map(|(name, _)| directory.join(name));
    if let Some(path) = paths.find(|path| !args.force && path.symlink_metadata().is_ok()) {
        return Err(output_exists(&path));
    }
    for (name, bytes) in &files {
        let path = directory.join(name);
        write_output(&path, bytes, args.force)?;
        ui::out(&ui::printable(&path.to_string_lossy()));
    }
    Ok(0)
}

/// `reports_` and the name of the run report without its extension, or of its directory.
fn default_output(run: &Path) -> PathBuf {
    let name = if run.is_dir() { run.file_name() } else { run.file_stem() };
    PathBuf::from(format!("reports_{}", name.unwrap_or_default().to_string_lossy()))
}

/// The files of an evaluation, in memory.
struct Evidence {
    /// The directory.
    path: PathBuf,
    files: PackFiles,
}

impl Evidence {
    /// The evidence in a directory, or beside a run report.
    fn open(run: &Path) -> Result<Self> {
        let parent = run.parent().filter(|parent| !parent.as_os_str().is_empty());
        let path = match run.is_dir() {
            true => run.to_owned(),
            false => parent.unwrap_or_else(|| Path::new(".")).to_owned(),
        };
        let report = path.join(REPORT);
        if report.symlink_metadata().is_err() {
            return Err(Error::input(format!("--run {}: there is no {REPORT} beside it", run.display())))
                .hint(format!(
                    "pass {SUBJECT_REPORT} of the evidence, or its directory (`evaluate --report-out`)"
                ));
        }
        Ok(Self { files: pack::collect(&[report])?, path })
    }

    /// The bytes of a file; empty if it does not exist.
    fn bytes(&self, name: &str) -> &[u8] {
        self.files.get(&report_path(1, name)).unwrap_or_default()
    }

    /// Refuses a run report that is not the one of a side.
    fn require(&self, option: &str, path: &Path, name: &str, side: &str) -> Result<()> {
        let bytes = read_evidence(path, RUN_REPORT_LIMIT).map_err(|why| Error::input(why.to_string()));
        let bytes = bytes.with_context(|| format!("reading {option} {}", path.display()))?;
        match bytes == self.bytes(name) {
            true => Ok(()),
            false => Err(Error::input(format!(
                "{option} {}: it is not the run report of the {side} in {}",
                path.display(),
                self.path.join(REPORT).display()
            )))
            .hint(format!("pass {}", self.path.join(name).display())),
        }
    }

    /// Fails if the evidence contradicts itself.
    fn check(&self) -> Result<()> {
        let checking = || format!("checking the evidence in {}", self.path.display());
        let verdicts = pack::verify(&self.path, &self.files, &[report_path(1, REPORT)], &consistency())?;
        for verdict in &verdicts {
            if let Some(why) = verdict.errors.first() {
                return Err(Error::integrity(why.clone())).with_context(checking);
            }
            if let Some(sentence) = &verdict.host_execution {
                ui::on_stderr(&ui::host_execution_on_stderr(sentence));
            }
        }
        Ok(())
    }

    /// The names and bytes of what is written.
    fn outputs(&self, format: GenerateFormat) -> Result<Vec<(String, Vec<u8>)>> {
        let json = || ("evaluation.json".to_owned(), self.bytes(SUBJECT_REPORT).to_vec());
        Ok(match format {
            GenerateFormat::Json => vec![json()],
            GenerateFormat::Md => vec![self.markdown()?],
            GenerateFormat::Html => vec![self.html()?],
            GenerateFormat::All => vec![json(), self.markdown()?, self.html()?],
            GenerateFormat::Report => {
                let above = report_path(1, "");
                let named = |(path, bytes): (&str, &[u8])| {
                    Some((path.strip_prefix(&above)?.to_owned(), bytes.to_vec()))
                };
                self.files.iter().filter_map(named).collect()
            }
        })
    }

    fn parsed(&self, name: &str) -> Result<Value> {
        json::parse(name, self.bytes(name))
    }

    fn markdown(&self) -> Result<(String, Vec<u8>)> {
        let (report, manifest) = (self.parsed(REPORT)?, self.parsed(MANIFEST)?);
        let sha256 = sha256_hex(self.bytes(REPORT));
        let summary = Summary::new(&report, Beside::new(Some(&manifest), &sha256), &sha256);
        Ok(("evaluation.md".to_owned(), export::markdown(&summary).into_bytes()))
    }

    fn html(&self) -> Result<(String, Vec<u8>)> {
        let page = html::render(&self.parsed(REPORT)?, Some(&self.parsed(MANIFEST)?))?;
        Ok(("evaluation.html".to_owned(), page.into_bytes()))
    }
}
