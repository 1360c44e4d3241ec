//! One side of an evaluation: the evaluator measures one checkpoint. Its output is untrusted.

use crate::error::{Context as _, Error, Kind, Result};
use crate::evaluator_run::{EvaluatorRun, to_json};
use crate::evidence_dir::RunDir;
use crate::journal::JournalFile;
use crate::limits;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::progress::Progress;
use crate::recorded::typed;
use crate::signals::Signals;
use crate::ui::{Level, Ui, printable};
use invarlock_evidence::evaluation::RUN_REPORT;
use invarlock_evidence::format::runtime_manifest::{self as manifest, File};
use invarlock_evidence::job::{Role, Task};
use invarlock_evidence::journal::Journal;
use invarlock_evidence::json::{Size, parse_run_report};
use invarlock_evidence::numerics::digest::{canonical_json, sha256_hex};
use invarlock_evidence::run_report::{BaselineWindows, RunReport};
use invarlock_evidence::verify::consistent_run_report;
use invarlock_runtime::Outcome;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Largest number of members of a run report besides those of its tokens: losses, counts, guards, settings.
const MAX_MEMBERS: usize = 100_000;

/// What an interrupted evaluation leaves.
const KEPT: &str = "finished run directories are kept";

/// A measured side and what the manifest records of it.
pub struct Side {
    /// The parsed run report.
    pub report: RunReport,
    /// Path of the run report.
    pub path: PathBuf,
    /// The run report's bytes.
    pub bytes: Vec<u8>,
    /// `context.sides.<role>` of the manifest.
    pub evidence: manifest::Side,
}

/// Directory of a role below `--out`, as the Python package names it.
fn directory(role: Role) -> &'static str {
    match role {
        Role::Baseline => "source",
        Role::Subject => "edited",
    }
}

/// The measurement of one side.
pub struct Measurement<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The policy.
    pub policy: &'a Policy,
    /// The side.
    pub role: Role,
    /// The baseline's windows, for the subject.
    pub windows: Option<&'a BaselineWindows>,
}

impl Measurement<'_> {
    /// Measures the side. Its files are in the run directory, which the caller commits together with the manifest.
    ///
    /// `windows` are the numbers of preview and final windows. With `resume`, those that an interrupted command measured are not measured again.
    pub fn measure(
        &self,
        ui: &Ui,
        signals: &Signals,
        windows: [usize; 2],
        resume: bool,
    ) -> Result<(Side, RunDir, JournalFile)> {
        let side = self.role.name();
        let out = &self.plan.request.out;
        let run_dir = RunDir::begin(out, directory(self.role))?;
        let mut kept = JournalFile::open(&out.join(directory(self.role)), self.key()?, windows, resume);
        if let Some(why) = &kept.damage {
            ui.warn(&format!(
                "{side}: the journal of an interrupted run is not used, because it is damaged: {why}"
            ));
        }
        let known = Some(kept.losses.clone()).filter(|losses| !losses.is_empty());
        let of: usize = windows.iter().sum();
        if let Some(known) = &known {
            ui.say(
                Level::Normal,
                &format!("resuming {side}: {} of {of} windows are measured", known.windows()),
            );
        }
        let mut sink = Progress::new(ui, side);
        sink.journal = Some(&mut kept);
        let run = EvaluatorRun { journal: known.as_ref(), ..self.run() };
        let measured = run.run(&mut sink, signals, KEPT).and_then(|outcome| {
            let reached = limits::reached(&outcome);
            limits::notices(&reached).for_each(|line| ui.say(Level::Normal, &format!("{side}: {line}")));
            self.collect(outcome, &run_dir, known.as_ref())
        });
        let log = log_of(&sink);
        drop(sink);
        if let Some(why) = &kept.failure {
            ui.warn(&format!("{side}: finished windows are not kept for a later command: {why}"));
        }
        let measured = measured.map_err(|error| match kept.losses.windows() {
            n if n > 0 && kept.failure.is_none() => error.with_note(format!(
                "{n} of {of} windows of the {side} are measured; the same command resumes there"
            )),
            _ => error,
        });
        match (measured, log) {
            (Ok(measured), _) => Ok((measured, run_dir, kept)),
            (Err(error), None) => Err(error),
            (Err(error), Some(log)) => Err(keep_log_in(error, run_dir, &log)),
        }
    }

    /// SHA-256 of everything that decides the losses but the processor, which the journal names itself.
    fn key(&self) -> Result<String> {
        let plan = self.plan;
        let evaluator =
            plan.host_evaluator.as_ref().map(|path| std::fs::read(path).map(|bytes| sha256_hex(&bytes)));
        let windows = self.windows.map(to_json).transpose()?;
        let mut decides = json!({
            "format": "journal-v1",
            "role": self.role.name(),
            "image": plan.image.as_ref().map(|image| image.resolved.manifest_digest.to_string()),
            "evaluator": evaluator.transpose().context("hashing the evaluator")?,
            "checkpoint": plan.digest(self.role).tree_sha256,
            "dataset": plan.dataset_settings(),
            "windows": windows.map(|bytes| sha256_hex(&bytes)),
        });
        if plan.request.weight_only {
            decides["weight_only"] = json!(true);
        }
        Ok(sha256_hex(canonical_json(&decides).as_bytes()))
    }

    /// The run of the evaluator.
    pub fn run(&self) -> EvaluatorRun<'_> {
        let Self { plan, policy, role, windows } = *self;
        EvaluatorRun { opened: plan, policy, role, task: Task::Measure, windows, journal: None }
    }

    /// Checks and keeps what the run wrote to `/out`.
    fn collect(&self, outcome: Outcome, run_dir: &RunDir, known: Option<&Journal>) -> Result<Side> {
        let (report, bytes) = self.report(&outcome, known).map_err(|error| {
            let doing = format!("reading the output of the {} container", self.role.name());
            error.with_kind(Kind::Integrity).context(doing).with_note("the output is not used")
        })?;
        for file in &outcome.output {
            run_dir.write(&file.name, &file.bytes)?;
        }
        let outputs = outcome.output.iter().map(|file| File {
            name: file.name.clone(),
            sha256: sha256_hex(&file.bytes),
            bytes: file.bytes.len() as u64,
        });
        let path = run_dir.path(RUN_REPORT);
        let evidence = manifest::Side {
            reused: false,
            report_path: path.to_string_lossy().into_owned(),
            checkpoint: self.plan.digest(self.role).clone(),
            dataset: (self.role == Role::Baseline).then(|| self.plan.digests.data.clone()),
            resumed: known.map(manifest::Resumed::of),
            outputs: outputs.collect(),
            filter_digest: self.plan.filter.digest.clone(),
            refused: outcome.denied_calls.clone(),
            status: typed("how a run ended", json!(outcome.status))?,
            observations: typed("what was observed of a run", json!(outcome.observations))?,
            usage: typed("what a run used", json!(outcome.usage))?,
        };
        let bytes = bytes.to_vec();
        Ok(Side { report, path, bytes, evidence })
    }

    /// The run report in the output, which is untrusted.
    fn report<'o>(&self, outcome: &'o Outcome, known: Option<&Journal>) -> Result<(RunReport, &'o [u8])> {
        let (report, bytes) = run_report_of(outcome, self.plan.dataset.tokens())?;
        let measured = consistent_run_report(RUN_REPORT, &report, 0.0)?;
        if measured.journal().as_ref() != known {
            return Err(Error::integrity(format!("{RUN_REPORT} has other losses than the resumed ones")));
        }
        Ok((report, bytes))
    }
}

/// The run report in the output of a measurement of at most `tokens` tokens, and its bytes.
pub fn run_report_of(outcome: &Outcome, tokens: usize) -> Result<(RunReport, &[u8])> {
    let bytes = only_file(outcome, RUN_REPORT, &["events.jsonl"])?;
    check_plausible(RUN_REPORT, bytes, tokens)?;
    let report = parse_run_report(RUN_REPORT, bytes).map_err(|e| Error::integrity(e.to_string()))?;
    Ok((report, bytes))
}

/// The bytes of the output file `name`. Fails where it is missing, or where the output has other files than it and `more`.
pub fn only_file<'o>(outcome: &'o Outcome, name: &str, more: &[&str]) -> Result<&'o [u8]> {
    let expected = |found: &str| found == name || more.contains(&found);
    if let Some(file) = outcome.output.iter().find(|file| !expected(&file.name)) {
        let name = printable(&file.name);
        return Err(Error::integrity(format!("the container wrote an unexpected file {name:?}")));
    }
    let file = outcome.output.iter().find(|file| file.name == name);
    file.map(|file| file.bytes.as_slice()).ok_or_else(|| Error::integrity(format!("{name} is missing")))
}

/// What the evaluator printed besides its events, if anything.
pub fn log_of(sink: &Progress<'_>) -> Option<String> {
    let log = [sink.not_events.as_slice(), &sink.stderr].concat();
    (!log.is_empty()).then(|| printable(&String::from_utf8_lossy(&log)))
}

/// Keeps a log in a run directory of its own below `out`, and adds its path to the error.
pub fn keep_log(error: Error, out: &Path, role: Role, log: &str) -> Error {
    match RunDir::begin(out, directory(role)) {
        Ok(run_dir) => keep_log_in(error, run_dir, log),
        Err(why) => error.with_note(format!("the log could not be kept: {why}")),
    }
}

fn keep_log_in(error: Error, run_dir: RunDir, log: &str) -> Error {
    let path = run_dir.path("stderr.log");
    error.with_note(match keep_only(run_dir, log.as_bytes()) {
        Ok(()) => format!("log: {}", path.display()),
        Err(error) => format!("the log could not be kept: {error}"),
    })
}

/// Commits a run directory that contains the log and no measured files.
fn keep_only(run_dir: RunDir, log: &[u8]) -> Result<()> {
    for name in [RUN_REPORT, "events.jsonl"] {
        run_dir.discard(name);
    }
    run_dir.write("stderr.log", log)?;
    run_dir.commit()
}

/// Refuses a report `name` with more members than the requested windows can have. This is done before parsing, because a parsed member takes many
/// times the memory of its text.
pub fn check_plausible(name: &str, bytes: &[u8], tokens: usize) -> Result<()> {
    let members = |size: &Size| size.commas + size.colons;
    let containers = |size: &Size| size.objects + size.lists;
    // Each token is in the ids, the mask, the labels and, at most, the used tokens; each window has a few lists.
    let fits = |size: &Size| {
        members(size) <= 4 * tokens + MAX_MEMBERS && containers(size) <= 4 * tokens + MAX_MEMBERS
    };
    Size::check(bytes, fits).map_err(|size| {
        Error::integrity(format!(
            "{name} has {} members and {} lists, too many for {tokens} tokens",
            members(&size),
            containers(&size)
        ))
    })
}
