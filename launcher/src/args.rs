//! The typed command line. Nothing is opened or resolved here.
//!
//! Commands, options and defaults are those of the InvarLock Python package; `SPECIFICATION.md` lists the differences.

mod always;
mod attest;
mod calibrate;
mod container;
mod engine;
mod evaluate;
mod evidence_pack;
mod export;
mod image;
mod mounts;
mod registry;
mod report;
mod runtime;
mod special_files;
mod sweep;
mod verify;

pub use attest::{
    AttestCommand, InspectArgs, KeygenArgs, LockArgs, PlanCommand, SignArgs, VerifyEnvelopeArgs,
};
pub use calibrate::{CalibrateCommand, CalibrationArgs, NullSweepArgs, VeSweepArgs};
pub use container::{ContainerArgs, LimitArgs, VerifyImageArgs};
pub use engine::{CallArgs, EngineCall, EngineCommand, EngineImage, EngineRunArgs, InstallArgs};
pub use evaluate::{AllowArgs, EvaluateArgs, ExecutionMode};
pub use evidence_pack::{
    BuildPackArgs, EvidencePackCommand, InspectPackArgs, PackKeygenArgs, ReportArgs, VerifyPackArgs,
};
pub use export::{BatchArgs, ExportCommand, ExportKubernetesArgs, ExportSlurmArgs};
pub use image::{BuildArgs, ImageCommand};
pub use mounts::{InputOption, MountArgs, MountOption, MountSourceOption};
pub use registry::{PullArgs, PushArgs};
pub use report::{
    ExplainArgs, ExportArgs, GenerateArgs, GenerateFormat, HtmlArgs, ReportCommand, ValidateArgs,
};
pub use runtime::{
    BundleArgs, ChangeArgs, KillArgs, LearnArgs, LogsArgs, ProbeArgs, RunArgs, RuntimeCommand, StopArgs,
    StreamArgs, WorkloadArgs,
};
pub use special_files::SpecialFileArgs;
pub use sweep::{Executor, SweepArgs};
pub use verify::{AdvancedCommand, Provenance, RuntimeVerifyArgs, VerifyArgs, parse_age};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

/// Compare an edited model checkpoint with its baseline inside a container and record how it ran.
#[derive(Debug, Parser)]
#[command(
    name = "invarlock",
    version = concat!(env!("CARGO_PKG_VERSION"), " · schema=v1"),
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "Examples:\n  \
        invarlock evaluate --baseline base/ --subject quantised/ --dataset valid.jsonl\n  \
        invarlock verify reports/eval\n  \
        invarlock report html reports/eval -o report.html\n  \
        invarlock doctor"
)]
pub struct Cli {
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one value a process")]
pub enum Command {
    /// Measure baseline and subject in containers, compare them, write the evidence and verify it
    Evaluate(EvaluateArgs),
    /// Evaluate many subjects, presets and seeds from one plan, and compare them in one table
    Sweep(SweepArgs),
    /// Print a sweep as a job of Slurm or Kubernetes
    #[command(subcommand)]
    Export(ExportCommand),
    /// Verify evaluation reports and their runtime manifests
    Verify(VerifyArgs),
    /// Fix the criteria of an evaluation before it runs
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Render, explain, validate or export a report
    #[command(subcommand)]
    Report(ReportCommand),
    /// Manage runtime images; run a command in a container
    #[command(subcommand)]
    Runtime(RuntimeCommand),
    /// Check whether this machine can isolate runs
    Doctor(DoctorArgs),
    /// Less common commands
    #[command(subcommand)]
    Advanced(AdvancedCommand),
    /// Print a completion script for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
}

/// `invarlock doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    invarlock doctor\n  \
    invarlock doctor --json\n\n\
    Exit codes: 0 runs can be isolated, 1 a required control is missing.")]
pub struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Parses the command line of this process.
pub fn parse() -> Result<Cli, clap::Error> {
    Cli::try_parse()
}

/// The definition of the command line, for completion scripts.
pub fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn command_line_is_consistent() {
        super::definition().debug_assert();
    }
}
