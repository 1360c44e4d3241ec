//! Messages between the processes of a run.
//!
//! Most messages are JSON frames with descriptors beside them (`frame.rs`). The future workload, which has a filter, and the answers to
//! it are single bytes with fixed-size payloads (`bytes.rs`). All processes that speak here are trusted; the workload's program never does.

mod bytes;
mod frame;

pub(crate) use bytes::{FromWorkload, Reply, WorkloadSocket};
pub(crate) use frame::{receive, send};

use crate::boundary::MASKED;
use crate::identity::IdsInside;
use crate::observations::{InitReport, Observations};
use crate::outcome::{ProfileTrace, Status, Usage};
use crate::rlimit::Rlimit;
use crate::spec::{Limits, RuntimeFiles};
use crate::stdio::Streams;
use crate::user_mounts::RequestMount;
use invarlock_error::Error;
use invarlock_seccomp::{Program, ResolvedProfile};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Launcher to supervisor, first: what the supervisor needs to prepare before the run is known.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Prepare {
    /// Directory of lock files.
    pub(crate) state: PathBuf,
    /// Whether a plain child will be run instead of a container.
    pub(crate) host: bool,
    /// The workload's ids inside; none for those of a measurement.
    pub(crate) inside: Option<IdsInside>,
    /// Fault hooks of a test; empty otherwise.
    pub(crate) hooks: crate::hooks::Hooks,
}

/// The run. Descriptors: those of `streams`, then one for each layer, input and bind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) rootfs: Vec<PathBuf>,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: String,
    pub(crate) inputs: Vec<RequestInput>,
    pub(crate) mounts: Vec<RequestMount>,
    pub(crate) streams: Streams,
    pub(crate) filter: Program,
    pub(crate) limits: Limits,
    pub(crate) collect_output: bool,
    /// Time between SIGTERM and SIGKILL.
    pub(crate) stop_timeout: Duration,
    pub(crate) runtime_files: Option<RuntimeFiles>,
    /// For a plain child: its output directory.
    pub(crate) host: Option<PathBuf>,
    /// The profile to trace. The filter then reports every call, and the supervisor answers by this profile.
    pub(crate) trace: Option<ResolvedProfile>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RequestInput {
    pub(crate) target: String,
    /// Path of a file; none if the descriptor is a sealed memfd with the bytes.
    pub(crate) path: Option<PathBuf>,
}

impl Request {
    /// The paths of `/proc` that are masked.
    pub(crate) fn masked_paths(&self) -> impl Iterator<Item = &str> {
        let more = self.runtime_files.iter().flat_map(|files| &files.masked_paths);
        MASKED.into_iter().chain(more.map(String::as_str))
    }
}

/// Launcher to supervisor, after [`Prepare`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Run this, once.
    Run(Box<Request>),
    /// Stop the run: SIGTERM, then SIGKILL.
    Cancel,
    /// The caller's terminal is as before. After the answer, if the run had a terminal.
    TerminalRestored,
}

/// Supervisor to launcher. `Done` comes with one descriptor for each output file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The container has its terminal, whose master is the descriptor. Another answer follows.
    Terminal,
    Done(Box<Done>),
    Failed(Error),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) status: Status,
    /// Names and sizes.
    pub(crate) output: Vec<(String, u64)>,
    pub(crate) observations: Observations,
    pub(crate) usage: Usage,
    pub(crate) timings: Vec<(String, u64)>,
    pub(crate) denied_calls: Option<BTreeMap<String, u64>>,
    pub(crate) profile_trace: Option<ProfileTrace>,
}

/// Supervisor to builder. Descriptors as with [`Request`], without that of a terminal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Build<'a> {
    pub(crate) request: Cow<'a, Request>,
    /// Resource limits of the workload.
    pub(crate) rlimits: Vec<Rlimit>,
    /// The number of processors of the workload, if no cgroup limits them.
    pub(crate) processors: Option<usize>,
}

/// Init to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// The handle of `/out`, as a descriptor.
    Output,
    /// Init's part of the boundary is finished. With a terminal, its master is the descriptor. A plain child has nothing to report.
    Ready(Option<InitReport>),
    /// The step that failed.
    Failed(Error),
    /// The workload's end: its status as `wait(2)` encodes it, and its usage.
    Exited { status: i32, user_us: u64, system_us: u64, peak_kib: u64 },
}
