//! What the caller asks for and what it gets back: the public values of this crate.

use crate::kernel;
use crate::observe::Observations;
use invarlock_error::{Error, Result};
use invarlock_seccomp::Program;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

/// Longest path below `/in`.
const MAX_TARGET: usize = 1024;

/// One container: an unpacked, verified image, a command, its inputs, filter and limits.
#[derive(Debug)]
pub struct ContainerSpec {
    /// Unpacked layers, lowest first. They must be readable by everyone, as images are.
    pub rootfs: Vec<PathBuf>,
    /// Program (absolute path inside the image) and arguments.
    pub argv: Vec<String>,
    /// The whole environment of the workload.
    pub env: Vec<(String, String)>,
    /// Working directory inside the image.
    pub cwd: String,
    /// Files below `/in`.
    pub inputs: Vec<Input>,
    /// System-call filter of the workload; what it refuses is counted where the filter is one that is heard.
    pub filter: Program,
    /// What it may use.
    pub limits: Limits,
    /// Whether the files of `/out` are read after the run.
    pub collect_output: bool,
}

/// One read-only file of the container.
#[derive(Debug)]
pub struct Input {
    /// Where the container sees it: below `/in`.
    pub target: String,
    /// Where it comes from.
    pub source: InputSource,
}

/// Where an input comes from.
#[derive(Debug)]
pub enum InputSource {
    /// A file that was opened (and hashed) before: this very file is mounted.
    File {
        /// Its absolute path, for a rootless run, which has to open it again and checks that it is the same file.
        path: PathBuf,
        /// The handle.
        file: File,
    },
    /// Bytes that are written to a file of the container's own.
    Bytes(Vec<u8>),
}

/// A program of ours run as a plain child: no container, but the filter, limits and a supervisor.
#[derive(Debug)]
pub struct HostSpec {
    /// Program, an absolute path.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Directory whose files are read after the run.
    pub output: PathBuf,
    /// System-call filter.
    pub filter: Program,
    /// What it may use.
    pub limits: Limits,
}

/// The limits that a caller can insist on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// Memory.
    Memory,
    /// Processes and threads.
    Pids,
    /// Processor time per time.
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

/// What one run may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory with everything in it, bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Processors; a fraction is a share.
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
    /// Limits the user asked for: where one of them cannot be held, the run fails instead of saying so.
    #[serde(default)]
    pub required: BTreeSet<LimitName>,
}

impl Limits {
    /// Sane defaults from the machine: most of the free memory, all processors, a day.
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
    let text = kernel::read("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The workload exited with this code.
    Exited(i32),
    /// A signal ended the workload.
    Signaled(i32),
    /// The wall-time limit ended it.
    TimedOut,
    /// The memory limit ended it.
    MemoryLimit,
    /// The caller asked to stop.
    Cancelled,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Exited(code) => write!(f, "exit code {code}"),
            Status::Signaled(signal) => write!(f, "signal {signal}"),
            Status::TimedOut => f.write_str("the wall-time limit"),
            Status::MemoryLimit => f.write_str("the memory limit"),
            Status::Cancelled => f.write_str("a request to stop"),
        }
    }
}

impl Status {
    /// The code a shell would show.
    pub fn exit_code(self) -> u8 {
        match self {
            Status::Exited(code) => u8::try_from(code).unwrap_or(255),
            Status::Signaled(signal) => 128u8.saturating_add(u8::try_from(signal).unwrap_or(127)),
            Status::TimedOut => 124,
            Status::MemoryLimit => 137,
            Status::Cancelled => 130,
        }
    }
}

/// What a run used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// From Go to the end, milliseconds.
    pub wall_ms: u64,
    /// Processor time in user mode, milliseconds.
    pub cpu_user_ms: u64,
    /// Processor time in the kernel, milliseconds.
    pub cpu_system_ms: u64,
    /// Most memory at one time, bytes; none where nothing counts it.
    pub peak_memory_bytes: Option<u64>,
    /// What counted the memory: `cgroup`, `rusage` (the largest process) or `watchdog` (all together, as often as it looked).
    pub peak_memory_by: Option<String>,
    /// Processes the kernel killed for memory; none where nothing counts them.
    pub oom_kills: Option<u64>,
    /// Forks and threads that the pids limit refused; none where nothing counts them.
    #[serde(default)]
    pub forks_refused: Option<u64>,
    /// Limits that the run met, whether or not one of them ended it. `/out` and `/tmp` count where they were full at the end.
    #[serde(default)]
    pub limits_hit: Vec<LimitName>,
    /// Bytes the workload wrote to its standard output.
    pub stdout_bytes: u64,
    /// Bytes the workload wrote to its standard error.
    pub stderr_bytes: u64,
    /// Bytes of both that were thrown away because there were too many.
    pub log_bytes_dropped: u64,
}

/// One file that the workload left in `/out`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Its name; `/` between directories.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// What it left in `/out`, by name. Read after every process of it was dead.
    pub output: Vec<OutputFile>,
    /// What the kernel said of the boundary before the workload's first instruction.
    pub observations: Observations,
    /// What it used.
    pub usage: Usage,
    /// The steps of the run that were reached, in their order, and when: microseconds since the launcher's start.
    pub timings: Vec<(String, u64)>,
    /// The calls that its filter refused, by name, with how often; none where the filter is not one that is heard.
    pub refused: Option<BTreeMap<String, u64>>,
    /// Which of its calls were allowed, where its profile was being learned.
    pub learned: Option<Learned>,
}

/// What a workload called while its profile was being learned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// How often each decision of the profile allowed a call.
    pub used: Vec<u64>,
    /// The calls that were allowed because no decision matched them, by name, with how often.
    pub unmatched: BTreeMap<String, u64>,
    /// The calls that were refused, with those arguments that the profile looks at.
    pub refused: Vec<DeniedCall>,
}

/// A call that was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeniedCall {
    /// Its name.
    pub syscall: String,
    /// Arguments by their index. None where there were too many different ones to tell apart.
    pub args: Vec<(u8, u64)>,
    /// How often.
    pub count: u64,
}

/// Takes what the workload prints. The bytes are untrusted: [`crate::printable()`] makes them fit for a terminal.
pub trait Sink {
    /// Bytes of standard output, in order.
    fn stdout(&mut self, bytes: &[u8]);
    /// Bytes of standard error, in order.
    fn stderr(&mut self, bytes: &[u8]);
    /// Whether nobody wants any more of standard output, and of standard error. The workload then meets a closed pipe, as in a shell.
    fn gone(&self) -> [bool; 2] {
        [false; 2]
    }
}

/// Splits a target below `/in` into its components.
pub(crate) fn target_components(target: &str) -> Result<Vec<&str>> {
    let bad = |why: &str| {
        Err(Error::input(format!("input target {target:?} {why}; targets are plain paths below /in")))
    };
    let Some(rest) = target.strip_prefix("/in/") else { return bad("does not lie below /in") };
    let parts: Vec<&str> = rest.split('/').collect();
    if target.len() > MAX_TARGET || target.contains('\0') {
        return bad("is too long or has a NUL byte");
    }
    if parts.iter().any(|p| p.is_empty() || *p == "." || *p == ".." || p.len() > 255) {
        return bad("has an empty, too long, `.` or `..` component");
    }
    Ok(parts)
}

impl ContainerSpec {
    /// Refuses what can never work, before anything is started.
    pub(crate) fn check(&self) -> Result<()> {
        let input = |message: String| Err(Error::input(message));
        if self.rootfs.is_empty() || self.rootfs.len() > 128 {
            return input(format!("an image has 1 to 128 layers, not {}", self.rootfs.len()));
        }
        if let Some(layer) = self.rootfs.iter().find(|l| !l.is_absolute()) {
            return input(format!("layer {} is not an absolute path", layer.display()));
        }
        if !self.argv.first().is_some_and(|program| program.starts_with('/')) {
            return input("the command's program must be an absolute path inside the image".into());
        }
        if !self.cwd.starts_with('/')
            || self.cwd.split('/').any(|p| p == "..")
            || self.cwd.starts_with("/proc")
        {
            return input(format!(
                "the working directory {:?} must be an absolute path inside the image",
                self.cwd
            ));
        }
        check_strings(&self.argv, &self.env)?;
        let mut seen = BTreeSet::new();
        for i in &self.inputs {
            target_components(&i.target)?;
            if !seen.insert(&i.target) {
                return input(format!("two inputs want to be {}", i.target));
            }
            if let InputSource::File { path, .. } = &i.source
                && !path.is_absolute()
            {
                return input(format!("input {} is not an absolute path", path.display()));
            }
        }
        check_limits(&self.limits)
    }
}

pub(crate) fn check_strings(argv: &[String], env: &[(String, String)]) -> Result<()> {
    let nul = |s: &String| s.contains('\0');
    if argv.iter().any(nul) || env.iter().any(|(k, v)| nul(k) || nul(v) || k.is_empty() || k.contains('=')) {
        return Err(Error::input("the command or environment has a NUL byte, or a variable has no name"));
    }
    Ok(())
}

pub(crate) fn check_limits(limits: &Limits) -> Result<()> {
    // A tmpfs of no whole page would have no limit at all.
    let page = rustix::param::page_size() as u64;
    let least = [
        ("memory", limits.memory_bytes, 4 << 20),
        ("pids", limits.pids, 4),
        ("open files", limits.open_files, 8),
        ("output bytes", limits.output_bytes, page),
        ("output files", limits.output_files, 1),
        ("tmp bytes", limits.tmp_bytes, page),
    ];
    if let Some((what, value, least)) = least.iter().find(|(_, value, least)| value < least) {
        return Err(Error::input(format!(
            "a limit of {value} for {what} is below the least possible, {least}"
        )));
    }
    if !(limits.cpus.is_finite() && limits.cpus >= 0.01) || limits.wall.is_zero() {
        return Err(Error::input("the limits for processors and wall time must be above zero"));
    }
    Ok(())
}
