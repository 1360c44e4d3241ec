//! The result of a run.

use crate::observations::Observations;
use crate::spec::LimitName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

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
    /// The caller cancelled it.
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
    /// The exit code that a shell would report.
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

/// The resources that a run used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Wall time of the workload, milliseconds.
    pub wall_ms: u64,
    /// Processor time in user mode, milliseconds.
    pub cpu_user_ms: u64,
    /// Processor time in the kernel, milliseconds.
    pub cpu_system_ms: u64,
    /// Peak memory, bytes; none if it was not measured.
    pub peak_memory_bytes: Option<u64>,
    /// The source of the peak: `cgroup`, `rusage` (the largest process) or `watchdog` (the sum of all processes, sampled).
    pub peak_memory_by: Option<String>,
    /// Processes that the kernel killed for memory; none if they were not counted.
    pub oom_kills: Option<u64>,
    /// Forks and threads that the pids limit prevented; none if they were not counted.
    #[serde(default)]
    pub forks_refused: Option<u64>,
    /// Limits that were reached, whether or not one of them ended the run. `/out` and `/tmp` count if they were full at the end.
    #[serde(default)]
    pub limits_hit: Vec<LimitName>,
    /// Bytes that the workload wrote to its standard output.
    pub stdout_bytes: u64,
    /// Bytes that the workload wrote to its standard error.
    pub stderr_bytes: u64,
    /// Bytes of both that were discarded because they exceeded [`crate::MAX_LOG`].
    pub log_bytes_dropped: u64,
}

/// One file that the workload left in `/out`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Its path below `/out`.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The result of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// The files of `/out`, sorted by name. They are read after every process of the run is dead.
    pub output: Vec<OutputFile>,
    /// The boundary as the kernel reported it before the workload's first instruction.
    pub observations: Observations,
    /// The resources that it used.
    pub usage: Usage,
    /// The steps of the run in order, with the time since the launcher's start in microseconds.
    pub timings: Vec<(String, u64)>,
    /// Denied system calls by name, with their number; none if the filter does not report them.
    pub denied_calls: Option<BTreeMap<String, u64>>,
    /// The allowed and denied calls, if the profile was traced.
    pub profile_trace: Option<ProfileTrace>,
}

/// The system calls of a workload whose profile was traced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileTrace {
    /// How often each decision of the profile allowed a call.
    pub used: Vec<u64>,
    /// Calls that were allowed although no decision matched them, by name, with their number.
    pub unmatched: BTreeMap<String, u64>,
    /// Denied calls, with the arguments that the profile compares.
    pub denied: Vec<DeniedCall>,
}

/// A denied system call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeniedCall {
    /// Its name.
    pub syscall: String,
    /// Arguments by index. Empty if there were too many combinations to record.
    pub args: Vec<(u8, u64)>,
    /// How often it was denied.
    pub count: u64,
}

/// Receives the output of the workload. The bytes are untrusted: [`crate::printable()`] escapes them for a terminal.
pub trait Sink {
    /// Bytes of standard output, in order.
    fn stdout(&mut self, bytes: &[u8]);
    /// Bytes of standard error, in order.
    fn stderr(&mut self, bytes: &[u8]);
    /// Whether the reader of standard output, and of standard error, is gone. The workload's pipe is then closed, as in a shell.
    fn gone(&self) -> [bool; 2] {
        [false; 2]
    }
}
