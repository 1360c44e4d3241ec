//! `invarlock runtime engine …`: the commands of Podman and Docker that InvarLock's Python package calls, and those alone.

use super::always::AlwaysArgs;
use super::container::{parse_cpus, parse_memory, parse_name, parse_pids, parse_stop_timeout};
use super::mounts::{MountOption, parse_mount, parse_tmpfs, parse_volume};
use crate::device_name::DeviceName;
use clap::{ArgAction, ArgMatches, Args, FromArgMatches, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// `invarlock runtime engine …`.
#[derive(Debug, Subcommand)]
pub enum EngineCommand {
    /// Put a `podman` and a `docker` into a directory, which call this program
    Install(InstallArgs),
    /// Answer a command as `podman` does
    Podman(CallArgs),
    /// Answer a command as `docker` does
    Docker(CallArgs),
}

/// `invarlock runtime engine install`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    invarlock runtime engine install ~/invarlock-engine --record ~/records\n  \
    PATH=~/invarlock-engine:$PATH podman image inspect invarlock-python:0.12.1")]
pub struct InstallArgs {
    /// The directory; it is created if it is missing
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Write a record of each run to this directory. The variable INVARLOCK_ENGINE_RECORD of a caller precedes
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Limits of memory, processors and processes need not be enforced by a cgroup, for users who have none. Recorded
    #[arg(long)]
    pub weaker_limits: bool,
}

/// A command of an engine.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// Write a record of each run to this directory
    #[arg(long, env = "INVARLOCK_ENGINE_RECORD", value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Limits of memory, processors and processes need not be enforced by a cgroup
    #[arg(long)]
    pub weaker_limits: bool,
    /// The command.
    #[command(subcommand)]
    pub command: EngineCall,
}

/// The commands of an engine.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one value a process")]
pub enum EngineCall {
    /// Print the version
    Version(FormatArgs),
    /// Print facts about engine and machine
    Info(FormatArgs),
    /// Describe an image of the store, or check that it is there
    #[command(subcommand)]
    Image(EngineImage),
    /// Pull an image into the store. The only command with a network
    Pull {
        /// HOST/NAME:TAG or HOST/NAME@sha256:HEX
        image: String,
    },
    /// Run a command of an image
    Run(Box<EngineRunArgs>),
    /// End runs: SIGTERM, then SIGKILL
    Stop {
        /// Seconds before SIGKILL
        #[arg(short = 't', long, value_name = "SECONDS", value_parser = parse_stop_timeout)]
        time: Option<Duration>,
        /// Names or ids
        #[arg(required = true, value_name = "NAME|ID")]
        which: Vec<String>,
    },
    /// Kill runs at once
    Kill {
        /// Names or ids
        #[arg(required = true, value_name = "NAME|ID")]
        which: Vec<String>,
    },
}

/// How an output is formatted.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// Text with {{.Field}}, {{.Field.Member}} and {{json .Field}} [default: all, as JSON]
    #[arg(short = 'f', long, value_name = "TEMPLATE")]
    pub format: Option<String>,
}

/// Commands about images.
#[derive(Debug, Subcommand)]
pub enum EngineImage {
    /// Describe an image of the store
    Inspect {
        /// Name, digest or id
        image: String,
        /// Format.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Exit with 0 if the image is in the store, with 1 if it is not
    Exists {
        /// Name, digest or id
        image: String,
    },
}

/// `run`. Options that change nothing, because the boundary always has what they ask for, are accepted.
#[derive(Debug, Args)]
pub struct EngineRunArgs {
    /// Image, then the arguments of its entrypoint
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [ARGV]")]
    pub command: Vec<String>,
    /// What every run is.
    #[command(flatten)]
    pub always: AlwaysArgs,
    /// Always ALL
    #[arg(long, value_name = "NAME")]
    pub cap_drop: Vec<String>,
    /// Always no-new-privileges
    #[arg(long, value_name = "OPTION", value_parser = parse_security_option)]
    pub security_opt: Vec<String>,
    /// Always none
    #[arg(long, visible_alias = "net", value_name = "none", value_parser = parse_network)]
    pub network: Option<String>,
    /// never, or missing, which pulls nothing either
    #[arg(long, value_name = "never", value_parser = parse_pull)]
    pub pull: Option<String>,
    /// Write the id to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Name of the run
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub name: Option<String>,
    /// Seconds between SIGTERM and SIGKILL [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = parse_stop_timeout)]
    pub stop_timeout: Option<Duration>,
    /// Processes and threads
    #[arg(long, value_name = "NUMBER", value_parser = parse_pids, allow_negative_numbers = true)]
    pub pids_limit: Option<u64>,
    /// Processors
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus)]
    pub cpus: Option<f64>,
    /// Memory
    #[arg(short = 'm', long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory: Option<u64>,
    /// User inside
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Working directory
    #[arg(short = 'w', long, value_name = "PATH")]
    pub workdir: Option<String>,
    /// Environment variable
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Program that replaces the entrypoint and Cmd of the image
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Bind or directory in memory
    #[arg(long, value_name = "OPTIONS", value_parser = parse_mount)]
    pub mount: Vec<MountOption>,
    /// Bind
    #[arg(short = 'v', long, value_name = "SOURCE:TARGET[:ro]", value_parser = parse_volume)]
    pub volume: Vec<MountOption>,
    /// Directory in memory
    #[arg(long, value_name = "TARGET[:size=SIZE]", value_parser = parse_tmpfs)]
    pub tmpfs: Vec<MountOption>,
    /// Device that the Container Device Interface describes
    #[arg(long, value_name = "VENDOR/CLASS=NAME", value_parser = DeviceName::parse)]
    pub device: Vec<DeviceName>,
    /// GPUs of NVIDIA
    #[arg(long, value_name = "all|device=NAME", value_parser = parse_gpus)]
    pub gpus: Option<DeviceName>,
    /// Options that are refused.
    #[command(flatten)]
    pub refused: RefusedOptions,
}

/// An option of the other engines that would weaken the boundary, or asks for what it does not have.
struct Refused {
    long: &'static str,
    short: Option<char>,
    has_value: bool,
    why: &'static str,
}

const fn refused(long: &'static str, short: Option<char>, has_value: bool, why: &'static str) -> Refused {
    Refused { long, short, has_value, why }
}

const NAMESPACES: &str = "a container has namespaces of its own";
const NO_NETWORK: &str = "a container has no network";
const REFUSED: [Refused; 20] = [
    refused("privileged", None, false, "a container has no privilege of the host"),
    refused("cap-add", None, true, "a container has no capability"),
    refused("device-cgroup-rule", None, true, "a container has the devices of --device and --gpus only"),
    refused("pid", None, true, NAMESPACES),
    refused("ipc", None, true, NAMESPACES),
    refused("uts", None, true, NAMESPACES),
    refused("userns", None, true, NAMESPACES),
    refused("cgroupns", None, true, NAMESPACES),
    refused("cgroup-parent", None, true, "a run has a cgroup of its own"),
    refused("publish", Some('p'), true, NO_NETWORK),
    refused("publish-all", Some('P'), false, NO_NETWORK),
    refused("dns", None, true, NO_NETWORK),
    refused("add-host", None, true, NO_NETWORK),
    refused("volumes-from", None, true, "a container shares no mounts with another one"),
    refused("group-add", None, true, "a container has no supplementary groups"),
    refused("sysctl", None, true, "settings of the kernel are not changed"),
    refused("ulimit", None, true, "the limits of a container are fixed"),
    refused("interactive", Some('i'), false, "standard input is not passed on"),
    refused("tty", Some('t'), false, "a container has no terminal"),
    refused("detach", Some('d'), false, "there is no daemon that a run could be left to"),
];

/// The refused option that stands in the arguments, if there is one.
#[derive(Debug, Default)]
pub struct RefusedOptions {
    /// Its name, and why it is refused.
    pub first: Option<(&'static str, &'static str)>,
}

impl Args for RefusedOptions {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(REFUSED.iter().map(|option| {
            let arg = clap::Arg::new(option.long).long(option.long).hide(true).action(ArgAction::Append);
            // Flags can be written as `--privileged=true`.
            let arg = match option.has_value {
                true => arg,
                false => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            };
            match option.short {
                Some(short) => arg.short(short),
                None => arg,
            }
        }))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RefusedOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_set = |option: &&Refused| {
            let values = matches.get_many::<String>(option.long);
            values.into_iter().flatten().any(|value| option.has_value || value != "false")
        };
        Ok(Self { first: REFUSED.iter().find(is_set).map(|option| (option.long, option.why)) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn parse_security_option(text: &str) -> Result<String, &'static str> {
    match text {
        "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true" => Ok(text.to_owned()),
        _ => Err(
            "it would weaken the boundary, or the engine does not have it; use no-new-privileges, or leave it out",
        ),
    }
}

fn parse_network(text: &str) -> Result<String, &'static str> {
    match text {
        "none" => Ok(text.to_owned()),
        _ => Err("a container never has a network; use none, or leave it out"),
    }
}

/// `all`, or `device=NAME`; a number of GPUs does not say which.
fn parse_gpus(text: &str) -> Result<DeviceName, String> {
    let name = match text {
        "all" => text,
        other => other.trim_matches('"').strip_prefix("device=").ok_or("write all, or device=NAME")?,
    };
    DeviceName::parse(&format!("nvidia.com/gpu={name}"))
}

fn parse_pull(text: &str) -> Result<String, &'static str> {
    match text {
        "never" | "missing" => Ok(text.to_owned()),
        _ => Err("`run` has no network; use never, and the command `pull` before"),
    }
}

#[cfg(test)]
mod tests {
    use super::{EngineCall, EngineCommand, EngineRunArgs};
    use crate::args::{Cli, Command, RuntimeCommand};
    use clap::Parser as _;

    fn parse(words: &[&str]) -> Result<EngineRunArgs, String> {
        let args = ["invarlock", "runtime", "engine", "podman", "run"].iter().chain(words);
        match Cli::try_parse_from(args).map_err(|error| error.to_string())?.command {
            Command::Runtime(RuntimeCommand::Engine(EngineCommand::Podman(call))) => match call.command {
                EngineCall::Run(run) => Ok(*run),
                _ => Err("another command".to_owned()),
            },
            _ => Err("another verb".to_owned()),
        }
    }

    #[test]
    fn gpus_are_devices_of_the_container_device_interface() {
        let device = |words: &[&str]| {
            let args = parse(&[words, &["image:1"]].concat()).expect("run");
            args.device.iter().chain(&args.gpus).map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(device(&["--gpus", "all"]), ["nvidia.com/gpu=all"]);
        assert_eq!(device(&["--gpus=device=1"]), ["nvidia.com/gpu=1"]);
        assert_eq!(
            device(&["--device", "nvidia.com/gpu=0", "--device", "a/b=c"]),
            ["nvidia.com/gpu=0", "a/b=c"]
        );
    }

    #[test]
    fn what_follows_the_image_belongs_to_the_command() {
        let args = parse(&["--rm", "image:1", "-e", "--rm", "--network", "host", "--", "-x"]).expect("run");
        assert_eq!(args.command, ["image:1", "-e", "--rm", "--network", "host", "--", "-x"]);
        assert!(args.env.is_empty() && args.network.is_none());
    }

    #[test]
    fn options_that_weaken_the_boundary_are_named() {
        for (words, name) in [
            (&["--privileged"][..], "privileged"),
            (&["--privileged=true"], "privileged"),
            (&["--cap-add", "SYS_ADMIN"], "cap-add"),
            (&["--pid=host"], "pid"),
            (&["--device-cgroup-rule", "c 1:1 rw"], "device-cgroup-rule"),
            (&["-p", "80:80"], "publish"),
            (&["-it"], "interactive"),
        ] {
            let args = parse(&[words, &["image:1", "x"]].concat()).expect(name);
            assert_eq!(args.refused.first.map(|(name, _)| name), Some(name), "{words:?}");
            assert_eq!(args.command, ["image:1", "x"], "{words:?}");
        }
        assert!(parse(&["--privileged=false", "image:1"]).expect("run").refused.first.is_none());
        for words in [
            &["--network", "host"][..],
            &["--security-opt", "seccomp=unconfined"],
            &["--security-opt=apparmor=unconfined"],
            &["--pull=always"],
            &["--pids-limit", "-1"],
            &["--bogus"],
            &["--memory", "0"],
            &["--device", "/dev/kvm"],
            &["--gpus", "2"],
        ] {
            let error = parse(&[words, &["image:1"]].concat()).expect_err("refused");
            let option = words.first().and_then(|word| word.split('=').next()).expect("an option");
            assert!(error.contains(option), "{error}");
        }
    }
}
