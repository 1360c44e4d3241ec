//! `invarlock sweep`: expands the plan, runs what is not there yet, and writes the table.

use crate::args::{Executor, SweepArgs};
use crate::error::{Context as _, Error, Kind, Result};
use crate::evidence_dir::{check_writable, write_output};
use crate::part::Part;
use crate::policy::{Needs, Policy};
use crate::signals::Signals;
use crate::sweep::{Lock, Runs, Slurm, Sweep, SweepPlan, shared_arguments, wrong_options};
use crate::ui::{self, Level, Ui};
use crate::verbs::evaluate;
use console::style;
use invarlock_evidence::export::sweep::{to_csv, to_markdown};
use invarlock_evidence::sweep::{Columns, Row, Status, Table};
use invarlock_evidence::{format, html};
use serde::Serialize;
use std::path::Path;

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
    if args.executor == Executor::Local && (args.tasks.is_some() || !args.sbatch.is_empty()) {
        return Err(Error::input("--tasks and --sbatch are options of a Slurm job"))
            .hint("add --executor slurm");
    }
    let ui = Ui::new(if args.quiet || args.json { Level::Quiet } else { Level::Normal });
    let signals = Signals::catch()?;
    if let Some(sentence) = policy.host_execution() {
        ui::on_stderr(&ui::host_execution_on_stderr(&sentence));
    }
    let plan = SweepPlan::read(&args.plan)?;
    check_writable("--out", &args.out)?;
    let runs =
        Runs::of(&plan, &args.evaluate, args.part.unwrap_or(Part::ALL), &args.out, policy, &ui, &signals)?;
    let sweep = Sweep {
        out: &args.out,
        shared: &args.evaluate,
        jobs: args.jobs.unwrap_or(1),
        policy,
        runs: &runs,
        ui: &ui,
        signals: &signals,
    };
    if args.dry_run {
        return dry_run(args, sweep.rows());
    }
    if let Some(part) = args.part {
        let _lock = Lock::part(&args.out, part)?;
        return print_part(args, sweep.measure()?);
    }
    let (rows, _lock) = match args.executor {
        Executor::Local => {
            let lock = Lock::whole(&args.out)?;
            (sweep.measure()?, lock)
        }
        Executor::Slurm => {
            let lock = Lock::tasks(&args.out)?;
            let slurm = Slurm {
                plan: &args.plan,
                options: &args.sbatch,
                tasks: args.tasks.map(usize::from),
                jobs: args.jobs,
            };
            (sweep.complete(|missing, ended| slurm.run(&sweep, missing, ended))?, lock)
        }
    };
    let table = Table::new(rows);
    write_tables(&table, &args.out)?;
    print(args, &table)
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

fn dry_run(args: &SweepArgs, rows: Vec<Row>) -> Result<u8> {
    if args.json {
        ui::json(&SweepDryRunOutput { format_version: "sweep-dry-run-v1", runs: rows })?;
        return Ok(0);
    }
    print_rows(&rows);
    let missing = rows.iter().filter(|row| !row.found).count();
    ui::out(&format!("{} runs, {missing} to be measured", rows.len()));
    Ok(0)
}

fn print(args: &SweepArgs, table: &Table) -> Result<u8> {
    if args.json {
        ui::json(table)?;
    } else {
        print_rows(&table.runs);
        let line = table.counted();
        ui::out(&match table.ok {
            true => style(line).green().bold().to_string(),
            false => style(line).red().bold().to_string(),
        });
        ui::out(&format!("table     {}", ui::printable(&args.out.join("sweep.html").to_string_lossy())));
    }
    let any = |wanted: &[Status]| table.runs.iter().any(|row| wanted.contains(&row.status));
    Ok(match (any(&[Status::Error, Status::Missing]), any(&[Status::Fail])) {
        (true, _) => Kind::System.exit_code(),
        (false, failed) => u8::from(failed),
    })
}

/// The rows of a part. A subject that failed its gates is a result: the table of all runs says so.
fn print_part(args: &SweepArgs, rows: Vec<Row>) -> Result<u8> {
    let table = Table::new(rows);
    match args.json {
        true => ui::json(&table)?,
        false => print_rows(&table.runs),
    }
    let complete = table.runs.iter().all(|row| row.result.is_some());
    Ok(if complete { 0 } else { Kind::System.exit_code() })
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
