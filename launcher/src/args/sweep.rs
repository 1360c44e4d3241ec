//! `invarlock sweep`.

use crate::part::Part;
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// `invarlock sweep`.
#[derive(Debug, Args)]
#[command(after_help = "A plan names one baseline and the axes of the sweep:\n\n  \
    baseline: base/\n  \
    subjects: {int8: base-int8/, prune10: base-prune10/}\n  \
    presets: {valid: preset.yaml}\n  \
    seeds: [43, 44]        # optional: each draws other windows\n\n\
    Examples:\n  \
    invarlock sweep plan.yaml --out sweeps/quantised\n  \
    invarlock sweep plan.yaml --out sweeps/quantised --jobs 2 -- --profile dev --memory 4G\n  \
    invarlock sweep plan.yaml --out sweeps/quantised --dry-run\n  \
    invarlock sweep plan.yaml --out /shared/sweep --executor slurm --sbatch=--mem=8G\n\n\
    A run that is in the directory already, and was made from the same inputs, is not repeated.\n\n\
    Exit codes: 0 every subject passed, 1 a subject failed its gates, 2 input or usage, 3 a run failed,\n\
    128+n stopped by signal n.")]
pub struct SweepArgs {
    /// Plan: the baseline, subjects, presets and seeds
    #[arg(value_name = "PLAN.yaml")]
    pub plan: PathBuf,
    /// Directory of the sweep: evidence, logs and the table
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Runs at the same time; with --executor slurm, tasks at the same time [default: 1; with Slurm, as many as Slurm starts]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Where runs are measured: on this machine, or in the tasks of a Slurm array job, for which --out must be on a shared file system
    #[arg(long, value_enum, default_value = "local", value_name = "NAME", conflicts_with_all = ["part", "dry_run"])]
    pub executor: Executor,
    /// Tasks of the array job [default: one for about 10 s of work]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub tasks: Option<u16>,
    /// Option of sbatch, such as --sbatch=--partition=short; may be repeated
    #[arg(long, value_name = "OPTION", value_parser = parse_directive)]
    pub sbatch: Vec<String>,
    /// Measure only this part of the runs, from 0, and write no table: for a task of a batch system
    #[arg(long, value_name = "INDEX/COUNT", conflicts_with = "dry_run")]
    pub part: Option<Part>,
    /// Print the runs, and which of them are there already, and measure nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the table as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Print only the result
    #[arg(short, long)]
    pub quiet: bool,
    /// Options of `invarlock evaluate` for every run
    #[arg(last = true, value_name = "OPTIONS OF evaluate")]
    pub evaluate: Vec<OsString>,
}

/// Where the runs of a sweep are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Executor {
    /// On this machine
    Local,
    /// In the tasks of a Slurm array job
    Slurm,
}

/// An option that stands in a line `#SBATCH` of its own.
pub fn parse_directive(text: &str) -> Result<String, String> {
    match text.starts_with('-') && !text.chars().any(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("not an option of sbatch, such as --partition=short".to_owned()),
    }
}
