//! Measures the runs of a sweep that are not there yet.

use super::{Ended, Pool, Run, Runs, read_evidence};
use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::REPORT;
use crate::inputs;
use crate::part::Part;
use crate::policy::Policy;
use crate::signals::Signals;
use crate::ui::{Level, Ui};
use invarlock_evidence::sweep::{Columns, Row, Status};
use rustix::fs::FlockOperation;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// The most bytes of what a run prints that are read.
const MAX_PRINTED: u64 = 1 << 20;

/// The runs of a sweep, and how they are measured.
pub struct Sweep<'a> {
    /// Directory of the sweep.
    pub out: &'a Path,
    /// Options of `evaluate` that all runs share.
    pub shared: &'a [OsString],
    /// Runs at the same time.
    pub jobs: u16,
    /// The policy.
    pub policy: &'a Policy,
    /// The runs.
    pub runs: &'a Runs,
    /// Progress is printed here.
    pub ui: &'a Ui,
    /// Signals that end the sweep.
    pub signals: &'a Signals,
}

impl Sweep<'_> {
    /// The rows of all runs, from the evidence in the directory.
    pub fn rows(&self) -> Vec<Row> {
        self.runs.runs.iter().map(|run| self.row(run)).collect()
    }

    /// Whether there is evidence of a run that verifies. Evidence that does not verify counts as missing; it stays until the run is measured again.
    pub fn is_measured(&self, index: usize) -> bool {
        let run = &self.runs.runs[index];
        self.out.join(&run.evidence).join(REPORT).exists() && self.row(run).found
    }

    /// Which file the report of a run is, and when it was written; none without one.
    pub fn report_file(&self, index: usize) -> Option<(u64, SystemTime)> {
        let path = self.out.join(&self.runs.runs[index].evidence).join(REPORT);
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.modified().ok()?))
    }

    /// The row of a run from the evidence in the directory.
    fn row(&self, run: &Run) -> Row {
        let found = read_evidence(run, self.out, self.runs.image.as_deref(), self.policy);
        let (status, result) = match found {
            Some((status, result)) => (status, Some(result)),
            None => (Status::Missing, None),
        };
        Row {
            subject: run.subject.clone(),
            preset: run.preset.clone(),
            seed: run.seed,
            status,
            found: result.is_some(),
            result,
            evidence: run.evidence.to_string_lossy().into_owned(),
            error: None,
        }
    }

    /// Measures what is missing here, and gives the rows of all runs.
    pub fn measure(&self) -> Result<Vec<Row>> {
        self.complete(|missing, ended| {
            let pool =
                Pool { out: self.out, shared: self.shared, runs: &self.runs.runs, signals: self.signals };
            pool.run(missing, usize::from(self.jobs), ended)
        })
    }

    /// Lets `execute` measure the runs with the numbers that it is given, and gives the rows of all. It calls its second argument after each
    /// run.
    pub fn complete(
        &self,
        execute: impl FnOnce(&[usize], &mut dyn FnMut(Ended)) -> Result<()>,
    ) -> Result<Vec<Row>> {
        let mut rows = self.rows();
        // Two names of one subject are one run.
        let mut directories = BTreeSet::new();
        let missing: Vec<usize> = (0..rows.len())
            .filter(|index| !rows[*index].found && directories.insert(rows[*index].evidence.clone()))
            .collect();
        let there = rows.len() - missing.len();
        if there > 0 {
            let line = format!("{there} of {} runs are there and are not repeated", rows.len());
            self.ui.say(Level::Normal, &line);
        }
        // By directory of the evidence.
        let mut measured = BTreeMap::new();
        let mut meter = Meter { total: missing.len(), started: Instant::now(), done: 0 };
        let mut ended = |ended: Ended| {
            let run = &self.runs.runs[ended.index];
            let mut row = self.row(run);
            if row.result.is_none() {
                (row.status, row.error) = (Status::Error, Some(self.why(run, &ended)));
            }
            self.ui.say(Level::Normal, &meter.line(run, &describe(&row), ended.took));
            measured.insert(row.evidence.clone(), row);
        };
        if !missing.is_empty() {
            execute(&missing, &mut ended)?;
        }
        for row in rows.iter_mut().filter(|row| !row.found) {
            if let Some(Row { status, result, error, .. }) = measured.get(&row.evidence).cloned() {
                (row.status, row.result, row.error) = (status, result, error);
            }
        }
        Ok(rows)
    }

    /// Why a run gave no result, from the error that it printed.
    fn why(&self, run: &Run, ended: &Ended) -> String {
        let name = run.evidence.file_name().unwrap_or_default().to_string_lossy();
        let printed = self.out.join("logs").join(format!("{name}.json"));
        let bytes = inputs::read_small("what the run printed", &printed, MAX_PRINTED).unwrap_or_default();
        let printed: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match (printed.pointer("/error/message").and_then(Value::as_str), &ended.error, ended.code) {
            (Some(message), ..) => message.to_owned(),
            (None, Some(error), _) => error.to_string(),
            (None, None, Some(code)) => format!("the run ended with exit code {code}; see logs/{name}.log"),
            (None, None, None) => format!("the run was killed; see logs/{name}.log"),
        }
    }
}

/// Holds the directory of a sweep.
pub struct Lock {
    _files: Vec<File>,
}

impl Lock {
    /// For all runs: no other process may use the directory.
    pub fn whole(out: &Path) -> Result<Self> {
        let file = lock_file(out, ".lock")?;
        take(&file, out, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { _files: vec![file] })
    }

    /// For runs that other processes measure, of which each has a part.
    pub fn tasks(out: &Path) -> Result<Self> {
        let Self { _files: mut files } = Self::shared(out)?;
        let file = lock_file(out, ".tasks")?;
        take(&file, out, FlockOperation::NonBlockingLockExclusive)?;
        files.push(file);
        Ok(Self { _files: files })
    }

    /// No other process may use the directory for all runs.
    fn shared(out: &Path) -> Result<Self> {
        let file = lock_file(out, ".lock")?;
        take(&file, out, FlockOperation::NonBlockingLockShared)?;
        Ok(Self { _files: vec![file] })
    }

    /// For one part. Waits for another process that has the same part: a batch system repeats a task whose node it lost, and the node may
    /// still be running it.
    pub fn part(out: &Path, part: Part) -> Result<Self> {
        let Self { _files: mut files } = Self::shared(out)?;
        let name = format!(".part-{}", part.name());
        let file = lock_file(out, &name)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).with_context(|| format!("locking {name}"))?;
        files.push(file);
        Ok(Self { _files: files })
    }
}

fn lock_file(out: &Path, name: &str) -> Result<File> {
    let creating = || format!("creating {}", out.join(name).display());
    std::fs::create_dir_all(out).with_context(creating)?;
    File::options().create(true).truncate(false).write(true).open(out.join(name)).with_context(creating)
}

fn take(file: &File, out: &Path, operation: FlockOperation) -> Result<()> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Error::input(format!("another sweep uses the directory {}", out.display())))
                .hint("wait for it, or choose another directory with --out")
        }
        Err(errno) => Err(errno).with_context(|| format!("locking {}", out.display())),
    }
}

/// A result in a few words.
fn describe(row: &Row) -> String {
    let (word, Columns { ratio, failed, .. }) = (row.status.word(), Columns::of(row));
    match &row.error {
        Some(error) => format!("{word} {error}"),
        None if failed.is_empty() => format!("{word} {ratio}"),
        None => format!("{word} {ratio} ({failed})"),
    }
}

/// Counts finished runs and estimates the time left.
struct Meter {
    total: usize,
    started: Instant,
    done: usize,
}

impl Meter {
    /// The line of a run that ended.
    fn line(&mut self, run: &Run, result: &str, took: Duration) -> String {
        self.done += 1;
        let Self { total, started, done } = *self;
        let left = started.elapsed().div_f64(done as f64).mul_f64(total.saturating_sub(done) as f64);
        let left = match done < total {
            true => format!(", about {} left", indicatif::HumanDuration(left)),
            false => String::new(),
        };
        let seed = run.seed.map_or_else(String::new, |seed| format!(", seed {seed}"));
        let variant = if run.variant.is_empty() { String::new() } else { format!(", {}", run.variant) };
        format!(
            "[{done}/{total}] {}, {}{variant}{seed}: {result} ({:.1} s{left})",
            run.subject,
            run.preset,
            took.as_secs_f64()
        )
    }
}
