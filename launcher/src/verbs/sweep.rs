//! `invarlock sweep`: expands the plan, runs what is not there yet, and writes the table.

use crate::args::SweepArgs;
use crate::error::{Context as _, Error, Kind, Result};
use crate::evidence_dir::{check_writable, write_output};
use crate::inputs;
use crate::policy::{Needs, Policy};
use crate::signals::Signals;
use crate::sweep::{Ended, Pool, Run, Runs, SweepPlan, read_evidence, shared_arguments, wrong_options};
use crate::ui::{self, Level, Ui};
use crate::verbs::evaluate;
use console::style;
use invarlock_evidence::export::sweep::{Columns, to_csv, to_markdown};
use invarlock_evidence::sweep::{Row, Status, Table};
use invarlock_evidence::{format, html};
use rustix::fs::FlockOperation;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// The most bytes of what a run prints that are read.
const MAX_PRINTED: u64 = 1 << 20;

/// What `sweep --dry-run --json` prints.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct SweepDryRunOutput {
    /// Always `sweep-dry-run-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "sweep-dry-run-v1")))]
    format_version: &'static str,
    /// The runs, with the results of those that are there.
    runs: Vec<Row>,
}

/// What the verb needs of the policy. Its runs are processes of their own, which deny themselves the network.
pub fn needs(args: &SweepArgs) -> Needs {
    match shared_arguments(&args.evaluate) {
        Ok(shared) => Needs { containers: 0, starts_programs: true, ..evaluate::needs(&shared) },
        // The error is reported when the verb runs.
        Err(_) => Needs::default(),
    }
}

/// Exits 0 when every subject passed, 1 when one failed its gates, 3 when a run failed.
pub fn run(args: &SweepArgs, policy: &Policy) -> Result<u8> {
    shared_arguments(&args.evaluate).map_err(|error| wrong_options(&error))?;
    let ui = Ui::new(if args.quiet || args.json { Level::Quiet } else { Level::Normal });
    let signals = Signals::catch()?;
    if let Some(sentence) = policy.host_execution() {
        ui::on_stderr(&ui::host_execution_on_stderr(&sentence));
    }
    let plan = SweepPlan::read(&args.plan)?;
    check_writable("--out", &args.out)?;
    let runs = Runs::of(&plan, &args.evaluate, &args.out, policy, &ui, &signals)?;
    let sweep = Sweep { args, policy, runs: &runs, ui: &ui, signals: &signals };
    if args.dry_run {
        return sweep.dry_run();
    }
    let _lock = lock(&args.out)?;
    let table = sweep.measure()?;
    write_tables(&table, &args.out)?;
    sweep.print(&table)
}

/// The directory, which no other sweep may use at the same time.
fn lock(out: &Path) -> Result<File> {
    let creating = || format!("creating {}", out.display());
    std::fs::create_dir_all(out).with_context(creating)?;
    let path = out.join(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).with_context(creating)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Error::input(format!("another sweep uses the directory {}", out.display())))
                .hint("wait for it, or choose another directory with --out")
        }
        Err(errno) => Err(errno).with_context(|| format!("locking {}", path.display())),
    }
}

fn write_tables(table: &Table, out: &Path) -> Result<()> {
    let page = html::sweep::render(table)?;
    let files = [
        ("sweep.json", format::to_bytes(table)),
        ("sweep.csv", to_csv(table).into_bytes()),
        ("sweep.md", to_markdown(table).into_bytes()),
        ("sweep.html", page.into_bytes()),
    ];
    files.iter().try_for_each(|(name, bytes)| write_output(&out.join(name), bytes, true))
}

struct Sweep<'a> {
    args: &'a SweepArgs,
    policy: &'a Policy,
    runs: &'a Runs,
    ui: &'a Ui,
    signals: &'a Signals,
}

impl Sweep<'_> {
    /// The row of a run from the evidence in the directory.
    fn row(&self, run: &Run) -> Row {
        let found = read_evidence(run, &self.args.out, self.runs.image.as_deref(), self.policy);
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

    fn dry_run(&self) -> Result<u8> {
        let rows: Vec<Row> = self.runs.runs.iter().map(|run| self.row(run)).collect();
        if self.args.json {
            ui::json(&SweepDryRunOutput { format_version: "sweep-dry-run-v1", runs: rows })?;
            return Ok(0);
        }
        print_rows(&rows);
        let missing = rows.iter().filter(|row| !row.found).count();
        ui::out(&format!("{} runs, {missing} to be measured", rows.len()));
        Ok(0)
    }

    /// Measures what is missing, and gives the table.
    fn measure(&self) -> Result<Table> {
        let mut rows: Vec<Row> = self.runs.runs.iter().map(|run| self.row(run)).collect();
        // Two names of one subject are one run.
        let mut directories = BTreeSet::new();
        let missing: Vec<usize> = (0..rows.len())
            .filter(|index| !rows[*index].found && directories.insert(rows[*index].evidence.clone()))
            .collect();
        let there = rows.len() - missing.len();
        if there > 0 {
            self.ui.say(
                Level::Normal,
                &format!("{there} of {} runs are there and are not repeated", rows.len()),
            );
        }
        // By directory of the evidence.
        let mut measured = BTreeMap::new();
        let mut meter = Meter { total: missing.len(), started: Instant::now(), done: 0 };
        let ended = |ended: Ended| {
            let run = &self.runs.runs[ended.index];
            let mut row = self.row(run);
            if row.result.is_none() {
                (row.status, row.error) = (Status::Error, Some(self.why(run, &ended)));
            }
            self.ui.say(Level::Normal, &meter.line(run, &describe(&row), ended.took));
            measured.insert(row.evidence.clone(), row);
        };
        let pool = Pool {
            out: &self.args.out,
            shared: &self.args.evaluate,
            runs: &self.runs.runs,
            signals: self.signals,
        };
        pool.run(&missing, usize::from(self.args.jobs), ended)?;
        for row in rows.iter_mut().filter(|row| !row.found) {
            if let Some(Row { status, result, error, .. }) = measured.get(&row.evidence).cloned() {
                (row.status, row.result, row.error) = (status, result, error);
            }
        }
        Ok(Table::new(rows))
    }

    /// Why a run gave no result, from the error that it printed.
    fn why(&self, run: &Run, ended: &Ended) -> String {
        if let Some(error) = &ended.error {
            return error.to_string();
        }
        let name = run.evidence.file_name().unwrap_or_default().to_string_lossy();
        let printed = self.args.out.join("logs").join(format!("{name}.json"));
        let bytes = inputs::read_small("what the run printed", &printed, MAX_PRINTED).unwrap_or_default();
        let printed: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match (printed.pointer("/error/message").and_then(Value::as_str), ended.code) {
            (Some(message), _) => message.to_owned(),
            (None, Some(code)) => format!("the run ended with exit code {code}; see logs/{name}.log"),
            (None, None) => format!("the run was killed; see logs/{name}.log"),
        }
    }

    fn print(&self, table: &Table) -> Result<u8> {
        if self.args.json {
            ui::json(table)?;
        } else {
            print_rows(&table.runs);
            let line = table.counted();
            ui::out(&match table.ok {
                true => style(line).green().bold().to_string(),
                false => style(line).red().bold().to_string(),
            });
            ui::out(&format!(
                "table     {}",
                ui::printable(&self.args.out.join("sweep.html").to_string_lossy())
            ));
        }
        let any = |wanted: &[Status]| table.runs.iter().any(|row| wanted.contains(&row.status));
        Ok(match (any(&[Status::Error, Status::Missing]), any(&[Status::Fail])) {
            (true, _) => Kind::System.exit_code(),
            (false, failed) => u8::from(failed),
        })
    }
}

/// The rows as a table of text.
fn print_rows(rows: &[Row]) {
    let width = |title: &str, text: fn(&Row) -> &str| {
        rows.iter().map(|row| ui::printable(text(row)).chars().count()).max().unwrap_or(0).max(title.len())
    };
    let (subjects, presets) = (width("SUBJECT", |row| &row.subject), width("PRESET", |row| &row.preset));
    ui::out(&format!(
        "{:<subjects$}  {:<presets$}  {:>10}  {:<7}  {:>9}  {:<18}  FAILED GATES",
        "SUBJECT", "PRESET", "SEED", "VERDICT", "RATIO", "INTERVAL"
    ));
    for row in rows {
        let Columns { seed, ratio, interval, failed, .. } = Columns::of(row);
        let why = row.error.as_deref().unwrap_or(&failed);
        let verdict = format!("{:<7}", row.status.word());
        let verdict = match row.status {
            Status::Pass => style(verdict).green(),
            Status::Fail | Status::Error => style(verdict).red().bold(),
            Status::Missing => style(verdict).dim(),
        };
        let (subject, preset) = (ui::printable(&row.subject), ui::printable(&row.preset));
        let line = format!(
            "{subject:<subjects$}  {preset:<presets$}  {seed:>10}  {verdict}  {ratio:>9}  {interval:<18}  {}",
            ui::printable(why)
        );
        ui::out(line.trim_end());
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
        format!(
            "[{done}/{total}] {}, {}{seed}: {result} ({:.1} s{left})",
            run.subject,
            run.preset,
            took.as_secs_f64()
        )
    }
}
