//! `invarlock export …`: a sweep for a batch system.

use super::sweep::parse_directive;
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// `invarlock export …`.
#[derive(Debug, Subcommand)]
pub enum ExportCommand {
    /// Print the batch script of a Slurm array job that measures the runs of a sweep that are not there yet
    #[command(after_help = "Examples:\n  \
        invarlock export slurm plan.yaml --out /shared/sweep --sbatch=--mem=8G > sweep.sh\n  \
        sbatch sweep.sh\n  \
        invarlock sweep plan.yaml --out /shared/sweep\n\n\
        Each task runs this program, which isolates its runs as on this machine. The last command writes the table, and measures\n\
        what is still missing. `invarlock sweep --executor slurm` does all three.")]
    Slurm(ExportSlurmArgs),
    /// Print a Kubernetes Job that measures the runs of a sweep, and its network policy
    #[command(after_help = "Example, in a copy of the volume's root:\n  \
        invarlock export kubernetes plan.yaml --out sweep --image registry.example/invarlock@sha256:… --claim models > job.yaml\n  \
        kubectl apply -f job.yaml\n  \
        invarlock sweep plan.yaml --out sweep -- --allow-host-execution\n\n\
        The image contains invarlock and invarlock-evaluator. The pods are isolated by Kubernetes and not by this program: the\n\
        evidence says so (execution_mode host-bypass, boundary kubernetes), and `invarlock verify` refuses it by default.")]
    Kubernetes(ExportKubernetesArgs),
}

/// What both batch systems need.
#[derive(Debug, Args)]
pub struct BatchArgs {
    /// Plan: the baseline, subjects, presets and seeds
    #[arg(value_name = "PLAN.yaml")]
    pub plan: PathBuf,
    /// Directory of the sweep, on a file system that all tasks have
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Tasks at the same time
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub jobs: Option<u16>,
    /// Tasks [default: with Slurm one for about 10 s of work, with Kubernetes one for each run]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub tasks: Option<u16>,
    /// Options of `invarlock evaluate` for every run
    #[arg(last = true, value_name = "OPTIONS OF evaluate")]
    pub evaluate: Vec<OsString>,
}

/// `invarlock export slurm`.
#[derive(Debug, Args)]
pub struct ExportSlurmArgs {
    /// The sweep.
    #[command(flatten)]
    pub batch: BatchArgs,
    /// Option of sbatch, such as --sbatch=--partition=short; may be repeated
    #[arg(long, value_name = "OPTION", value_parser = parse_directive)]
    pub sbatch: Vec<String>,
}

/// `invarlock export kubernetes`.
#[derive(Debug, Args)]
pub struct ExportKubernetesArgs {
    /// The sweep.
    #[command(flatten)]
    pub batch: BatchArgs,
    /// Image with invarlock and invarlock-evaluator, by digest
    #[arg(long, value_name = "NAME@sha256:HEX", value_parser = image)]
    pub image: String,
    /// Persistent volume claim with the plan and everything that it names
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub claim: String,
    /// Name of the Job
    #[arg(long, default_value = "invarlock-sweep", value_name = "NAME", value_parser = name)]
    pub name: String,
    /// Memory of a pod, as Kubernetes writes it
    #[arg(long, default_value = "4Gi", value_name = "SIZE", value_parser = quantity)]
    pub memory: String,
    /// Processors of a pod
    #[arg(long, default_value_t = 2, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    pub cpus: u16,
}

/// An image by digest.
fn image(text: &str) -> Result<String, String> {
    let is_digest = |hex: &str| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    match text.split_once("@sha256:") {
        Some((name, hex)) if !name.is_empty() && is_digest(hex) => Ok(text.to_owned()),
        _ => Err("not an image by digest: NAME@sha256:HEX".to_owned()),
    }
}

/// A name of an object of Kubernetes (RFC 1123).
fn name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ends = text.starts_with('-') || text.ends_with('-');
    match (1..=63).contains(&text.len()) && text.bytes().all(plain) && !ends {
        true => Ok(text.to_owned()),
        false => Err("not a name of 1 to 63 lower-case letters, digits and hyphens".to_owned()),
    }
}

/// A whole number with a suffix of bytes.
fn quantity(text: &str) -> Result<String, String> {
    let number = text.trim_end_matches(['i', 'K', 'M', 'G', 'T', 'k']);
    let suffixes = ["", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"];
    let valid =
        number.parse::<u64>().is_ok_and(|number| number > 0) && suffixes.contains(&&text[number.len()..]);
    if valid { Ok(text.to_owned()) } else { Err("not a size such as 512Mi or 4Gi".to_owned()) }
}
