//! The description of a run, as the caller supplies it, and its validation before any process is started.

use crate::bind_source::BindSource;
use crate::procfs;
use crate::rlimit_kind::LowerRlimit;
use crate::stdio::Stdio;
use crate::user_mounts::{self, Mount};
use invarlock_error::{Error, Result, bail};
use invarlock_seccomp::Program;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest path below `/in`.
const MAX_TARGET: usize = 1024;

/// The files of a container. They are read-only.
#[derive(Debug)]
pub enum Rootfs {
    /// Extracted layers of a verified image, lowest first. All users must be able to read them.
    Layers(Vec<PathBuf>),
    /// A directory of the host that was not verified. In a run by root, its owner is mapped to the user of the container.
    Directory(BindSource),
}

/// One container: its files, a command, inputs, filter and limits.
#[derive(Debug)]
pub struct ContainerSpec {
    /// Its files.
    pub rootfs: Rootfs,
    /// Program and arguments. The program is a path inside the image, or a name that is searched in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment of the workload.
    pub env: Vec<(String, String)>,
    /// Working directory inside the image.
    pub cwd: String,
    /// Files below `/in`.
    pub inputs: Vec<Input>,
    /// What its standard streams are connected with.
    pub stdio: Stdio,
    /// System-call filter of the workload. Denied calls are counted if the filter reports them.
    pub filter: Program,
    /// Resource limits.
    pub limits: Limits,
    /// Whether the files of `/out` are read after the run.
    pub collect_output: bool,
    /// How long the workload may take to end after SIGTERM, when the run is cancelled.
    pub stop_timeout: Duration,
    /// What programs expect of an OCI runtime beside their image. Measurements have none of it.
    pub runtime_files: Option<RuntimeFiles>,
    /// Mounts that the caller adds; without `runtime_files`, only devices, and what the container cannot write.
    pub mounts: Vec<Mount>,
}

/// What programs expect of an OCI runtime beside their image: writable `/run`, `/var/tmp` and `/dev/shm`, which share the limit of `/tmp`;
/// `/dev/fd` and `/dev/std*`; the working directory, and basic files of `/etc`, where the image has none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RuntimeFiles {
    /// The content of `/etc/passwd`, which replaces that of the image.
    pub passwd: Option<String>,
    /// Names directly in `/proc` that are masked beside those of the boundary: plain absolute paths.
    pub masked_paths: Vec<String>,
    /// Resource limits that are lower than those of a run.
    pub rlimits: Vec<LowerRlimit>,
}

impl RuntimeFiles {
    /// `/etc/passwd` of an image without one.
    pub const PASSWD: &'static str = "root:x:0:0:root:/root:/bin/sh\n";
}

/// One read-only file of the container.
#[derive(Debug)]
pub struct Input {
    /// Its path in the container, below `/in`.
    pub target: String,
    /// Its source.
    pub source: InputSource,
}

/// The source of an input.
#[derive(Debug)]
pub enum InputSource {
    /// A file that was opened (and hashed) before. Exactly this file is mounted.
    File {
        /// Its absolute path. A rootless run opens it again and checks that it is the same file.
        path: PathBuf,
        /// The handle.
        file: File,
    },
    /// Bytes that are written to a new file of the container.
    Bytes(Vec<u8>),
}

/// A trusted program run as a plain child: no container, but a filter, limits and a supervisor.
#[derive(Debug)]
pub struct HostSpec {
    /// The program: an absolute path.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The directory whose files are read after the run.
    pub output: PathBuf,
    /// System-call filter.
    pub filter: Program,
    /// Resource limits.
    pub limits: Limits,
}

/// The limits that a caller can require.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// Memory.
    Memory,
    /// Processes and threads.
    Pids,
    /// Processors.
    Cpu,
    /// Open files of a process.
    Files,
    /// Core dumps: always 0.
    Core,
    /// Wall time.
    Wall,
    /// Bytes in `/out`.
    Output,
    /// Files in `/out`.
    OutputFiles,
    /// Bytes in `/tmp`.
    Tmp,
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LimitName::Memory => "memory",
            LimitName::Pids => "pids",
            LimitName::Cpu => "processor",
            LimitName::Files => "open-files",
            LimitName::Core => "core-dump",
            LimitName::Wall => "wall-time",
            LimitName::Output => "output",
            LimitName::OutputFiles => "output-files",
            LimitName::Tmp => "/tmp",
        })
    }
}

/// Resource limits of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, bytes; `/out` and `/tmp` count.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Processors; fractions are allowed.
    pub cpus: f64,
    /// Wall time.
    pub wall: Duration,
    /// Bytes in `/out`.
    pub output_bytes: u64,
    /// Files in `/out`.
    pub output_files: u64,
    /// Bytes in `/tmp`.
    pub tmp_bytes: u64,
    /// Open files of a process.
    pub open_files: u64,
    /// Limits that the user requested: if one of them cannot be enforced, the run fails.
    #[serde(default)]
    pub required: BTreeSet<LimitName>,
}

impl Limits {
    /// Smallest limit of memory, bytes.
    pub const MIN_MEMORY_BYTES: u64 = 4 << 20;
    /// Smallest limit of processes and threads.
    pub const MIN_PIDS: u64 = 4;

    /// Smallest size of `/out` and of `/tmp`, bytes: a page. The kernel treats a smaller tmpfs as unlimited.
    pub fn min_directory_bytes() -> u64 {
        rustix::param::page_size() as u64
    }

    /// Defaults from the machine: 90 % of the free memory, all processors, a day.
    pub fn for_machine() -> Self {
        let available = available_memory().unwrap_or(4 << 30);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Limits {
            memory_bytes: (available / 10 * 9).max(64 << 20),
            pids: 64 + 16 * cpus as u64,
            cpus: cpus as f64,
            wall: Duration::from_secs(86_400),
            output_bytes: 64 << 20,
            output_files: 64,
            tmp_bytes: 64 << 20,
            open_files: 1024,
            required: BTreeSet::new(),
        }
    }
}

fn available_memory() -> Option<u64> {
    let text = procfs::read("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Splits a target below `/in` into its components.
pub(crate) fn target_components(target: &str) -> Result<Vec<&str>> {
    let bad = |why: &str| {
        Err(Error::input(format!("input target {target:?} {why}")).with_hint("use a plain path below /in"))
    };
    let Some(rest) = target.strip_prefix("/in/") else { return bad("is not below /in") };
    let parts: Vec<&str> = rest.split('/').collect();
    if target.len() > MAX_TARGET || target.contains('\0') {
        return bad("is too long or contains a NUL byte");
    }
    if parts.iter().any(|p| p.is_empty() || *p == "." || *p == ".." || p.len() > 255) {
        return bad("contains an empty, too long, `.` or `..` component");
    }
    Ok(parts)
}

impl Rootfs {
    fn check(&self) -> Result<()> {
        match self {
            Rootfs::Layers(layers) if layers.is_empty() || layers.len() > 128 => {
                bail!(Input, "an image has 1 to 128 layers, not {}", layers.len());
            }
            Rootfs::Layers(layers) => match layers.iter().find(|layer| !layer.is_absolute()) {
                Some(layer) => bail!(Input, "layer {} is not an absolute path", layer.display()),
                None => Ok(()),
            },
            Rootfs::Directory(source) if !source.is_directory => {
                bail!(Input, "the root file system {} is not a directory", source.path().display());
            }
            Rootfs::Directory(_) => Ok(()),
        }
    }
}

impl ContainerSpec {
    /// The usual time between SIGTERM and SIGKILL.
    pub const STOP_TIMEOUT: Duration = Duration::from_secs(3);

    /// Rejects a description that can never work, before any process is started.
    pub(crate) fn check(&self) -> Result<()> {
        self.rootfs.check()?;
        if self.argv.first().is_none_or(String::is_empty) {
            bail!(Input, "the command names no program");
        }
        if !self.cwd.starts_with('/')
            || self.cwd.split('/').any(|p| p == "..")
            || Path::new(&self.cwd).starts_with("/proc")
        {
            let message =
                format!("the working directory {:?} must be an absolute path inside the image", self.cwd);
            return Err(Error::input(message)
                .with_hint("write it like /work, without `..`; it cannot be below /proc"));
        }
        check_strings(&self.argv, &self.env)?;
        let mut targets = BTreeSet::new();
        for input in &self.inputs {
            target_components(&input.target)?;
            if !targets.insert(&input.target) {
                bail!(Input, "two inputs have the target {}", input.target);
            }
            if let InputSource::File { path, .. } = &input.source
                && !path.is_absolute()
            {
                bail!(Input, "input {} is not an absolute path", path.display());
            }
        }
        if self.runtime_files.is_none() && self.mounts.iter().any(Mount::is_writable) {
            bail!(System, "a measurement has no further writable mounts");
        }
        user_mounts::check(&self.mounts)?;
        check_limits(&self.limits)
    }
}

pub(crate) fn check_strings(argv: &[String], env: &[(String, String)]) -> Result<()> {
    let nul = |s: &String| s.contains('\0');
    let bad_variable =
        |(name, value): &(String, String)| nul(name) || nul(value) || name.is_empty() || name.contains('=');
    if argv.iter().any(nul) || env.iter().any(bad_variable) {
        bail!(Input, "the command or environment contains a NUL byte, or a variable has no name");
    }
    Ok(())
}

pub(crate) fn check_limits(limits: &Limits) -> Result<()> {
    let directory = Limits::min_directory_bytes();
    let least = [
        ("memory", limits.memory_bytes, Limits::MIN_MEMORY_BYTES),
        ("pids", limits.pids, Limits::MIN_PIDS),
        ("open files", limits.open_files, 8),
        ("output bytes", limits.output_bytes, directory),
        ("output files", limits.output_files, 1),
        ("tmp bytes", limits.tmp_bytes, directory),
    ];
    if let Some((what, value, least)) = least.iter().find(|(_, value, least)| value < least) {
        bail!(Input, "a limit of {value} for {what} is below the minimum of {least}");
    }
    if !(limits.cpus.is_finite() && limits.cpus >= 0.01) || limits.wall.is_zero() {
        bail!(Input, "the limits for processors and wall time must be above zero");
    }
    Ok(())
}

/// The value as the kernel rounds limits of memory and of a tmpfs.
pub(crate) fn round_to_pages(bytes: u64) -> u64 {
    let page = rustix::param::page_size() as u64;
    bytes / page * page
}

/// Thousandths of a processor, the unit of the `cpu` limit.
pub(crate) fn millicpus(limits: &Limits) -> u64 {
    (limits.cpus * 1000.0).round() as u64
}
