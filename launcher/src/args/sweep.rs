//! `invarlock sweep`.

use clap::Args;
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
    invarlock sweep plan.yaml --out sweeps/quantised --dry-run\n\n\
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
    /// Runs at the same time
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
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
