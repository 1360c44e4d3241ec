//! What was typed: the typed command line and nothing else; no file is opened here.
//!
//! Commands, options and defaults are upstream's (`SPECIFICATION.md` lists the differences).

use crate::error::OURS;
mod image;
mod transport;

pub use image::{BuildArgs, CareArgs, ImageCommand};
pub use transport::{PullArgs, PushArgs, ReachArgs};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Compare an edited checkpoint with its baseline inside a container, and prove how it ran.
#[derive(Debug, Parser)]
#[command(
    name = "invarlock",
    version = concat!(env!("CARGO_PKG_VERSION"), " · schema=v1"),
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "Examples:\n  \
        invarlock evaluate --baseline base/ --subject quantised/ --dataset valid.jsonl\n  \
        invarlock verify reports/eval\n  \
        invarlock report html -i reports/eval -o report.html\n  \
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
    /// Check evaluation reports and their runtime manifests; trusts nothing they say of themselves
    Verify(VerifyArgs),
    /// Make something for people out of a report
    #[command(subcommand)]
    Report(ReportCommand),
    /// Build, list and inspect runtime images; run one
    #[command(subcommand)]
    Runtime(RuntimeCommand),
    /// Say what this machine can and cannot give the boundary, and what to do about it
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

/// Named exceptions to the default policy; each stands in the evidence.
#[derive(Debug, Clone, Default, Args)]
pub struct AllowArgs {
    /// Let this command use the network, to pull an image docker://… that is not in the store; containers get none (recorded; the default
    /// verification policy rejects it)
    #[arg(long, help_heading = "Exceptions")]
    pub allow_network: bool,
    /// Run the measuring on the host, without a container (recorded as host-bypass)
    #[arg(long, help_heading = "Exceptions")]
    pub allow_host_execution: bool,
}

/// Where the measuring runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExecutionMode {
    /// In a container built by this launcher
    Container,
    /// As a plain child process, without a container
    Host,
}

/// `invarlock evaluate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    invarlock evaluate --baseline base/ --subject int8/ --preset preset.yaml\n  \
    invarlock evaluate --baseline base/ --subject int8/ --dataset valid.jsonl --profile dev --json\n  \
    invarlock evaluate --baseline base/ --subject int8/ --preset preset.yaml --dry-run\n\n\
    Exit codes: 0 passed, 1 the subject failed its gates, 2 input or usage, 3 integrity, safety,\n\
    unsupported, system or limit, 128+n stopped by signal n.")]
pub struct EvaluateArgs {
    /// Directory of the checkpoint compared with (Hugging Face layout, safetensors)
    #[arg(long, value_name = "DIR")]
    pub baseline: PathBuf,
    /// Directory of the checkpoint under test
    #[arg(long, value_name = "DIR")]
    pub subject: PathBuf,
    /// Preset: dataset and window settings
    #[arg(long, value_name = "FILE.yaml", conflicts_with = "dataset")]
    pub preset: Option<PathBuf>,
    /// Dataset of one JSON object a line with a "text" member
    #[arg(long, value_name = "FILE.jsonl")]
    pub dataset: Option<PathBuf>,
    /// Profile: dev (the preset's windows), ci (240 + 240), release (400 + 400)
    #[arg(long, default_value = "ci", value_name = "NAME")]
    pub profile: String,
    /// Tier of the gates: conservative, balanced or aggressive
    #[arg(long, default_value = "balanced", value_name = "NAME")]
    pub tier: String,
    /// Device: auto or cpu
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub device: String,
    /// Where run reports and logs go
    #[arg(long, default_value = "runs", value_name = "DIR")]
    pub out: PathBuf,
    /// Where the evaluation report and the runtime manifest go
    #[arg(long, default_value = "reports/eval", value_name = "DIR")]
    pub report_out: PathBuf,
    /// Reuse a measured baseline: a run report with its runtime manifest beside it
    #[arg(long, value_name = "report.json")]
    pub baseline_report: Option<PathBuf>,
    /// Name recorded for the subject's edit
    #[arg(long, value_name = "NAME")]
    pub edit_label: Option<String>,
    /// Model adapter: auto or hf_causal
    #[arg(long, default_value = "auto", value_name = "NAME", hide_default_value = true)]
    pub adapter: String,
    /// As --adapter, for the baseline
    #[arg(long, value_name = "NAME", hide = true)]
    pub baseline_adapter: Option<String>,
    /// As --adapter, for the subject
    #[arg(long, value_name = "NAME", hide = true)]
    pub subject_adapter: Option<String>,
    /// Print the plan as JSON and run nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Exit 0 even when the subject fails its gates
    #[arg(long)]
    pub no_gate: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Say only the result
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more: what the containers print, timings
    #[arg(short, long)]
    pub verbose: bool,
    /// Where the measuring runs
    #[arg(long, value_enum, default_value = "container", value_name = "MODE")]
    pub execution_mode: ExecutionMode,
    /// Exceptions.
    #[command(flatten)]
    pub allow: AllowArgs,
    /// Image, evaluator and limits.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

/// Image and evaluator of a container, and its limits.
#[derive(Debug, Clone, Default, Args)]
pub struct RuntimeArgs {
    /// Image to run: a tag of the store, oci:DIR@sha256:…, oci:DIR:TAG, sha256:… or, once pulled, docker://HOST/NAME:TAG
    #[arg(long, env = "INVARLOCK_RUNTIME_IMAGE", value_name = "IMAGE", help_heading = "Container")]
    pub image: Option<String>,
    /// Digest the image's manifest must have; another one is an error
    #[arg(
        long,
        env = "INVARLOCK_RUNTIME_IMAGE_DIGEST",
        value_name = "sha256:HEX",
        help_heading = "Container"
    )]
    pub image_digest: Option<String>,
    /// The evaluator the default image is built from [default: beside this program]
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub evaluator: Option<PathBuf>,
    /// Verification of the image.
    #[command(flatten)]
    pub care: CareArgs,
    /// System-call profile of yours: Docker's, the OCI's or our format (recorded; verify rejects it)
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub seccomp: Option<PathBuf>,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Limits of one container. What is asked for here and cannot be held is an error.
#[derive(Debug, Clone, Default, Args)]
pub struct LimitArgs {
    /// Memory, such as 8G [default: most of what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Limits of a container")]
    pub memory: Option<u64>,
    /// Processors, such as 2 or 0.5 [default: all]
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus, help_heading = "Limits of a container")]
    pub cpus: Option<f64>,
    /// Processes and threads [default: 64 and 16 a processor]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(4..=4_194_304), help_heading = "Limits of a container")]
    pub pids: Option<u64>,
    /// Wall time in seconds [default: 86400]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Limits of a container")]
    pub timeout: Option<u64>,
    /// Room in /tmp, such as 256M [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Limits of a container")]
    pub tmp_size: Option<u64>,
    /// Room in /out [default: what a report needs, at least 8M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Limits of a container")]
    pub output_size: Option<u64>,
}

/// What makes a manifest acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Provenance {
    /// The measuring ran in a container
    Container,
    /// Host execution is accepted, too
    Host,
}

/// `invarlock verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    invarlock verify reports/eval\n  \
    invarlock verify --profile release --json a/evaluation.report.json b/evaluation.report.json\n  \
    invarlock verify --expected-runtime-image-digest sha256:… reports/eval\n\n\
    Exit codes: 0 accepted, 1 policy, 2 malformed or unusable input, 3 integrity (ci and release).")]
pub struct VerifyArgs {
    /// Evaluation reports, or directories that hold evaluation.report.json
    #[arg(required = true, value_name = "REPORT|DIR")]
    pub reports: Vec<PathBuf>,
    /// Profile: dev, ci or release
    #[arg(long, default_value = "ci", value_name = "NAME")]
    pub profile: String,
    /// Tier of the gates the report must have been judged by [default: the report's own, which is printed]
    #[arg(long, value_name = "NAME")]
    pub tier: Option<String>,
    /// Report of the baseline, for digest parity
    #[arg(long, value_name = "REPORT")]
    pub baseline: Option<PathBuf>,
    /// Largest difference of recomputed values
    #[arg(long, default_value_t = 1e-9, value_name = "NUMBER")]
    pub tolerance: f64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Where the measuring may have run
    #[arg(long, value_enum, default_value = "container", value_name = "MODE")]
    pub runtime_provenance: Provenance,
    /// The runtime image you pin: a manifest with another one is refused
    #[arg(long, value_name = "sha256:HEX")]
    pub expected_runtime_image_digest: Option<String>,
    /// Give upstream's verdict, with its known gaps (no strict checks)
    #[arg(long)]
    pub upstream_parity: bool,
}

/// `invarlock report …`.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// One self-contained HTML page
    #[command(after_help = "Example:\n  invarlock report html -i reports/eval -o report.html")]
    Html {
        /// Evaluation report, or the directory that holds it
        #[arg(short, long, value_name = "REPORT|DIR")]
        input: PathBuf,
        /// File to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
    },
}

/// `invarlock runtime …`.
#[derive(Debug, Subcommand)]
pub enum RuntimeCommand {
    /// Build, list, verify, name and remove images of the store
    #[command(subcommand)]
    Image(ImageCommand),
    /// Run a command of an image inside the boundary; exits with its code (125: ours)
    #[command(after_help = "Examples:\n  \
        invarlock runtime run invarlock-runtime:local -- /invarlock-evaluator --self-test\n  \
        invarlock runtime run oci:layout@sha256:… -- /bin/true")]
    Run {
        /// What runs.
        #[command(flatten)]
        what: RunArgs,
        /// Print outcome and observations as JSON on standard error
        #[arg(long)]
        json: bool,
    },
    /// Run a command as `runtime run` does, slowly, and print which rules of its system-call profile it used and which calls were refused
    #[command(after_help = "Examples:\n  \
        invarlock runtime learn invarlock-runtime:local -- /invarlock-evaluator --self-test\n  \
        invarlock runtime learn --seccomp profile.json oci:layout@sha256:… -- /bin/true\n\n\
        The difference goes to standard output, for a person to review; what the command prints goes to standard\n\
        error. Nothing is allowed that the profile does not allow.")]
    Learn {
        /// What runs.
        #[command(flatten)]
        what: RunArgs,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Attack the boundary of this machine and show what it held (exit 1: not everything)
    Probe {
        /// Print the table as one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// A command of an image.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Image reference
    pub image: String,
    /// Command and arguments [default: the image's entrypoint]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    pub argv: Vec<String>,
    /// Verification of the image.
    #[command(flatten)]
    pub care: CareArgs,
    /// Let this program pull an image docker://… that is not in the store; the container gets no network by it
    #[arg(long, help_heading = "Container")]
    pub allow_network: bool,
    /// System-call profile of yours: Docker's, the OCI's or our format [default: by what the image speaks]
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub seccomp: Option<PathBuf>,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// `invarlock doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `invarlock advanced …`.
#[derive(Debug, Subcommand)]
pub enum AdvancedCommand {
    /// Check that a runtime manifest binds a report
    RuntimeVerify {
        /// The evaluation report
        #[arg(long, value_name = "REPORT")]
        report: PathBuf,
        /// The runtime manifest
        #[arg(long, value_name = "MANIFEST")]
        manifest: PathBuf,
        /// The runtime image you pin
        #[arg(long, value_name = "sha256:HEX")]
        expected_runtime_image_digest: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Parses the command line; usage errors exit with 2, or with [`OURS`] where 2 could be the workload's.
pub fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|usage| {
        // Nobody left to tell when the terminal is gone.
        drop(usage.print());
        let verb: Vec<_> = std::env::args_os().skip(1).take(2).collect();
        let code = if usage.use_stderr() && (verb == ["runtime", "run"] || verb == ["runtime", "learn"]) {
            i32::from(OURS)
        } else {
            usage.exit_code()
        };
        std::process::exit(code)
    })
}

/// How a failure is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// For people, on standard error.
    Text,
    /// On standard output.
    JsonToOutput,
    /// On standard error, because standard output is the workload's.
    JsonToError,
}

impl Cli {
    /// How this command tells a failure.
    pub fn report(&self) -> Report {
        let json = match &self.command {
            Command::Evaluate(a) => a.json,
            Command::Verify(a) => a.json,
            Command::Doctor(a) => a.json,
            Command::Advanced(AdvancedCommand::RuntimeVerify { json, .. }) => *json,
            Command::Runtime(RuntimeCommand::Image(command)) => command.wants_json(),
            Command::Runtime(RuntimeCommand::Probe { json } | RuntimeCommand::Learn { json, .. }) => *json,
            Command::Runtime(RuntimeCommand::Run { json: true, .. }) => return Report::JsonToError,
            _ => false,
        };
        if json { Report::JsonToOutput } else { Report::Text }
    }

    /// Whether the exit code is somebody else's, so that failures of ours need one of their own.
    pub fn passes_codes_on(&self) -> bool {
        matches!(
            &self.command,
            Command::Runtime(
                RuntimeCommand::Run { .. } | RuntimeCommand::Learn { .. } | RuntimeCommand::Probe { .. }
            )
        )
    }
}

/// `8G`, `512M`, `1.5GiB` or a number of bytes; units are powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let exponent = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(format!("`{unit}` is not a unit: use K, M, G or T")),
    };
    let value: f64 =
        number.parse().map_err(|_| format!("`{text}` is not a size: write 8G, 512M or bytes"))?;
    let bytes = value * 1024f64.powi(exponent);
    if bytes < 1.0 || bytes > 2f64.powi(50) {
        return Err(format!("`{text}` is out of range: 1 byte to 1024 T"));
    }
    Ok(bytes as u64)
}

/// A number of processors; a fraction is a share of one.
fn parse_cpus(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(cpus) if (0.01..=65_536.0).contains(&cpus) => Ok(cpus),
        Ok(_) => Err(format!("`{text}` is out of range: 0.01 to 65536")),
        Err(_) => Err(format!("`{text}` is not a number of processors: write 2 or 0.5")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn processors() {
        assert_eq!(parse_cpus("0.5"), Ok(0.5));
        for bad in ["", "two", "0", "-1", "NaN", "inf", "1e9"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("8G"), Ok(8 << 30));
        assert_eq!(parse_size("1.5KiB"), Ok(1536));
        assert_eq!(parse_size("77"), Ok(77));
        for bad in ["", "G", "-1", "8X", "0", "1e30G", "8Gibb"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
