//! `invarlock runtime …`.

use super::always::AlwaysArgs;
use super::container::{VerifyImageArgs, parse_name, parse_stop_timeout};
use super::{EngineCommand, ImageCommand, LimitArgs, MountArgs};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Help of `--output-size`; the default of `evaluate` is another one.
const OUTPUT_SIZE: &str = "Size of /out [default: 8M]";

/// `invarlock runtime …`.
#[derive(Debug, Subcommand)]
pub enum RuntimeCommand {
    /// Manage the images of the store
    #[command(subcommand)]
    Image(ImageCommand),
    /// Run a command of an image in a container; exits with the command's exit code, or 125 when invarlock itself fails
    #[command(after_help = "Examples:\n  \
        invarlock runtime run invarlock-runtime:local -- --self-test\n  \
        invarlock runtime run oci:layout@sha256:… -- /bin/true\n  \
        invarlock runtime run --bundle DIR")]
    Run(RunArgs),
    /// Write an OCI bundle for crun, runc and other OCI runtimes: the files of an image, and the boundary of `runtime run` as config.json
    #[command(after_help = "Examples:\n  \
        invarlock runtime bundle invarlock-runtime:local bundle/ -- --self-test\n  \
        crun run --bundle bundle/ NAME\n\n\
        Started by root, the files belong to an unprivileged id of this machine; started by a user, to the user.")]
    Bundle(BundleArgs),
    /// List the commands of `runtime run` of this user that run now
    Ps {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// End running commands: SIGTERM, then SIGKILL. Waits until they have ended
    Stop(StopArgs),
    /// Kill running commands at once. Waits until they have ended
    Kill(KillArgs),
    /// Always fails: the output of a run is not kept. The error says how to keep it
    Logs(LogsArgs),
    /// Answer the commands of Podman and Docker that InvarLock's Python package calls, with containers of this program
    #[command(subcommand)]
    Engine(EngineCommand),
    /// Trace a command: print which rules of its system-call profile it used and which calls were denied. Slower than `runtime run`
    #[command(after_help = "Examples:\n  \
        invarlock runtime learn invarlock-runtime:local -- --self-test\n  \
        invarlock runtime learn --seccomp profile.json oci:layout@sha256:… -- /bin/true\n\n\
        The list of rules is printed to standard output, for review. The command's own output goes to standard error.\n\
        Calls that the profile denies stay denied.")]
    Learn(LearnArgs),
    /// Attack a container on this machine and print which attacks were blocked (exit 1: not all of them)
    Probe(ProbeArgs),
}

/// `invarlock runtime run`.
#[derive(Debug, Args)]
#[command(mut_arg("output_size", |arg| arg.help(OUTPUT_SIZE)))]
#[command(mut_arg("image", |arg| arg.required(false).required_unless_present("bundle")))]
#[command(mut_arg("rm", |arg| arg.hide(true)))]
#[command(mut_arg("init", |arg| arg.hide(true)))]
#[command(mut_arg("read_only", |arg| arg.hide(true)))]
pub struct RunArgs {
    /// The command.
    #[command(flatten)]
    pub workload: WorkloadArgs,
    /// Run the OCI bundle in this directory instead of an image. What its config.json asks beyond the boundary is left out or refused, by name
    #[arg(long, value_name = "DIR", help_heading = "Container", conflicts_with_all = ["image", "argv", "env", "env_file", "workdir", "entrypoint", "user", "verify_image", "allow_network", "device", "cdi_spec_dir"])]
    pub bundle: Option<PathBuf>,
    /// Its standard streams.
    #[command(flatten)]
    pub streams: StreamArgs,
    /// Write the files that the command leaves in /out to this directory, which is new or empty
    #[arg(long, value_name = "DIR", help_heading = "Mounts")]
    pub output: Option<PathBuf>,
    /// Name of the run, for `runtime ps`, `stop` and `kill`
    #[arg(long, value_name = "NAME", value_parser = parse_name, help_heading = "Run")]
    pub name: Option<String>,
    /// Write the id of the run to this file, which must not exist
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub cidfile: Option<PathBuf>,
    /// How long the command may take to end after SIGTERM, such as 10s or 1m, before it is killed [default: 3s]
    #[arg(long, value_name = "TIME", value_parser = parse_stop_timeout, help_heading = "Run")]
    pub stop_timeout: Option<Duration>,
    /// Print outcome and observations as JSON on standard error
    #[arg(long)]
    pub json: bool,
    /// What needs no option here.
    #[command(flatten)]
    pub always: AlwaysArgs,
    /// There is no network
    #[arg(long, hide = true, value_name = "none")]
    pub network: Option<NoNetwork>,
}

/// The only network.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum NoNetwork {
    /// None.
    None,
}

/// Standard streams of a command.
#[derive(Debug, Clone, Copy, Args)]
pub struct StreamArgs {
    /// Pass standard input on to the command. Without it, the command reads an empty input
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Run the command on a terminal of its own; with --interactive, your terminal is connected with it. Output is not escaped
    #[arg(short = 't', long)]
    pub tty: bool,
}

/// `invarlock runtime stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Names or ids of running commands; at least four digits of an id
    #[arg(required = true, value_name = "NAME|ID")]
    pub which: Vec<String>,
    /// Kill the command if it has not ended after this time, such as 10s or 1m [default: that of `run --stop-timeout`]
    #[arg(short = 't', long, value_name = "TIME", value_parser = parse_stop_timeout)]
    pub time: Option<Duration>,
}

/// `invarlock runtime kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Names or ids of running commands; at least four digits of an id
    #[arg(required = true, value_name = "NAME|ID")]
    pub which: Vec<String>,
}

/// `invarlock runtime logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Name or id of a run
    #[arg(value_name = "NAME|ID")]
    pub which: String,
}

/// `invarlock runtime bundle`.
#[derive(Debug, Args)]
#[command(mut_arg("output_size", |arg| arg.help(OUTPUT_SIZE)))]
pub struct BundleArgs {
    /// Image reference
    pub image: String,
    /// The directory; it must not exist
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Arguments of the entrypoint of the image, or the command if it has none [default: those of the image]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    pub argv: Vec<String>,
    /// Changes of the configuration of the image.
    #[command(flatten)]
    pub changes: ChangeArgs,
    /// Verification of the image.
    #[command(flatten)]
    pub verify: VerifyImageArgs,
    /// Allow this program to pull a docker://… image that is not in the store
    #[arg(long, help_heading = "Container")]
    pub allow_network: bool,
    /// Your own system-call profile, in Docker's, the OCI's or our format [default: depends on the image]
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub seccomp: Option<PathBuf>,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `invarlock runtime learn`.
#[derive(Debug, Args)]
#[command(mut_arg("output_size", |arg| arg.help(OUTPUT_SIZE)))]
pub struct LearnArgs {
    /// The command.
    #[command(flatten)]
    pub workload: WorkloadArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `invarlock runtime probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// Print the table as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A command of an image.
#[derive(Debug, Args)]
pub struct WorkloadArgs {
    /// Image reference
    #[arg(required = true, index = 1)]
    pub image: Option<String>,
    /// Arguments of the entrypoint of the image, or the command if it has none [default: those of the image]
    #[arg(index = 2, trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    pub argv: Vec<String>,
    /// Changes of the configuration of the image.
    #[command(flatten)]
    pub changes: ChangeArgs,
    /// Mounts.
    #[command(flatten)]
    pub mounts: MountArgs,
    /// Verification of the image.
    #[command(flatten)]
    pub verify: VerifyImageArgs,
    /// Allow this program to pull a docker://… image that is not in the store. The container never has a network
    #[arg(long, help_heading = "Container")]
    pub allow_network: bool,
    /// Your own system-call profile, in Docker's, the OCI's or our format [default: depends on the image]
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub seccomp: Option<PathBuf>,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// What options change in the configuration of an image.
#[derive(Debug, Clone, Default, Args)]
pub struct ChangeArgs {
    /// Environment variable; can be repeated. NAME alone takes the value from the environment of invarlock
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// File with a variable a line, NAME=VALUE or NAME; can be repeated. Empty lines and lines that start with # are skipped
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory [default: that of the image]
    #[arg(short = 'w', long, value_name = "PATH")]
    pub workdir: Option<String>,
    /// Program that replaces the entrypoint and Cmd of the image: a word, or a JSON array of words; empty for none
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// User inside, by name or number [default: that of the image]. It has no privilege on the host
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
}
