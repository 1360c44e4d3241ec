//! `invarlock advanced calibrate …`.

use super::AllowArgs;
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// `invarlock advanced calibrate …`.
#[derive(Debug, Subcommand)]
pub enum CalibrateCommand {
    /// Evaluate a model that must pass, once for each seed, and recommend limits of the spectral guard
    #[command(after_help = "Examples:\n  \
        invarlock advanced calibrate null-sweep --config null.yaml --out calibration/null --jobs 2\n  \
        invarlock advanced calibrate null-sweep --config null.yaml --subject int8/ --subject int4/ --n-seeds 5\n\n\
        The configuration is a preset that also names the model (`model: {id: …}`). Each seed draws other windows. Subjects are\n\
        known to be good; with them, limits of the comparison with the baseline are recommended, too. A run that is in the\n\
        directory already, and was made from the same inputs, is not repeated.\n\n\
        Exit codes: 0 the files are written, 2 input or usage, 3 a run failed (the same command goes on with the others),\n\
        128+n stopped by signal n.")]
    NullSweep(NullSweepArgs),
    /// Try the factors of InvarLock's variance guard, once for each tier and seed, and recommend the gain from which they are applied
    #[command(after_help = "Examples:\n  \
        invarlock advanced calibrate ve-sweep --config ve.yaml --subject int8/ --out calibration/ve --jobs 2\n  \
        invarlock advanced calibrate ve-sweep --config ve.yaml --subject int8/ --tier balanced --window 8 --window 16\n\n\
        The configuration is a preset that also names the model (`model: {id: …}`). Each seed draws other windows. The guard is\n\
        that of `evaluate --guards upstream`; the subjects should be edited as yours are. A run that is in the directory already,\n\
        and was made from the same inputs, is not repeated.\n\n\
        Exit codes: 0 the files are written, 2 input or usage, 3 a run failed (the same command goes on with the others),\n\
        128+n stopped by signal n.")]
    VeSweep(VeSweepArgs),
}

/// `invarlock advanced calibrate null-sweep`.
#[derive(Debug, Args)]
pub struct NullSweepArgs {
    /// What is evaluated.
    #[command(flatten)]
    pub runs: CalibrationArgs,
    /// Configuration: a preset that also names the model
    #[arg(long, default_value = "configs/calibration/null_sweep_ci.yaml", value_name = "FILE.yaml")]
    pub config: PathBuf,
    /// Directory of the runs and of the recommended limits
    #[arg(long, default_value = "reports/calibration/null_sweep", value_name = "DIR")]
    pub out: PathBuf,
    /// Share that is added to the limits, 0 to 1
    #[arg(long, default_value_t = 0.05, value_name = "SHARE", value_parser = parse_share)]
    pub safety_margin: f64,
    /// Largest share of runs with a finding, 0 to 1
    #[arg(long, default_value_t = 0.01, value_name = "SHARE", value_parser = parse_share)]
    pub target_any_warning_rate: f64,
}

/// `invarlock advanced calibrate ve-sweep`.
#[derive(Debug, Args)]
pub struct VeSweepArgs {
    /// What is evaluated.
    #[command(flatten)]
    pub runs: CalibrationArgs,
    /// Configuration: a preset that also names the model
    #[arg(long, default_value = "configs/calibration/rmt_ve_sweep_ci.yaml", value_name = "FILE.yaml")]
    pub config: PathBuf,
    /// Directory of the runs and of the recommended limits
    #[arg(long, default_value = "reports/calibration/ve_sweep", value_name = "DIR")]
    pub out: PathBuf,
    /// Windows on which the guard tries factors; may be repeated
    #[arg(long, default_values_t = [6, 8, 12, 16], value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub window: Vec<u64>,
    /// Share that is added to the gain, 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", value_parser = parse_share)]
    pub safety_margin: f64,
    /// Share of trials up to which `expected_enable_rate` is reported, 0 to 1; the limit does not depend on it
    #[arg(long, default_value_t = 0.05, value_name = "SHARE", value_parser = parse_share)]
    pub target_enable_rate: f64,
}

/// What the runs of a calibration have in common.
#[derive(Debug, Args)]
pub struct CalibrationArgs {
    /// A subject that is known to be good, made from the model; may be repeated [default: the model itself]
    #[arg(long, value_name = "DIR")]
    pub subject: Vec<PathBuf>,
    /// Tier to recommend limits for; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    pub tier: Vec<String>,
    /// Seed that draws windows; may be repeated. Replaces --n-seeds and --seed-start
    #[arg(long, value_name = "SEED")]
    pub seed: Vec<u64>,
    /// Number of seeds
    #[arg(long, default_value_t = 10, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub n_seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 42, value_name = "SEED")]
    pub seed_start: u64,
    /// Profile: dev (the configuration's windows), ci_cpu (120 + 120), ci (240 + 240), release (400 + 400)
    #[arg(long, default_value = "ci", value_name = "NAME")]
    pub profile: String,
    /// Device: auto or cpu
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub device: String,
    /// Runs at the same time
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Print only the result
    #[arg(short, long)]
    pub quiet: bool,
    /// Exceptions.
    #[command(flatten)]
    pub allow: AllowArgs,
    /// Options of `invarlock evaluate` for every run
    #[arg(last = true, value_name = "OPTIONS OF evaluate")]
    pub evaluate: Vec<OsString>,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.0..=1.0).contains(&number) {
        true => Ok(number),
        false => Err("not a number from 0 to 1".to_owned()),
    }
}
