//! The states of a run, each with exactly its data.

use super::first_process::FirstProcess;
use super::memory_watchdog::MemoryWatchdog;
use super::seccomp_notify::DeniedCalls;
use crate::cgroup::RunCgroup;
use crate::identity::{Identity, IdsInside};
use crate::limits::{Capacity, Enforcement};
use crate::observations::{InitReport, InputObservation, Observations, WorkloadReport};
use crate::outcome::Usage;
use crate::protocol::{Build, Request};
use crate::sys;
use crate::user_mounts::ExpectedFile;
use invarlock_error::{Context as _, Result};
use std::borrow::Cow;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A run, in any state.
pub(super) struct Run<'a> {
    /// Whether the run is a plain child instead of a container.
    pub(super) host: bool,
    pub(super) identity: Identity,
    pub(super) cgroup: &'a RunCgroup,
    pub(super) launcher: &'a UnixStream,
    pub(super) signals: OwnedFd,
    pub(super) state: State,
}

/// A run passes through these in order; it can end from each.
pub(super) enum State {
    /// Waits for the launcher's request. A container's builder already prepares what does not depend on it; a plain child has no process.
    Preparing(Option<FirstProcess>),
    /// The container is built, up to the waiting workload.
    Building(Box<Building>),
    /// The workload runs.
    Running(Box<Running>),
    /// The run is over; its processes may still have to be killed.
    Ended(Ended),
}

/// What the launcher requested, and how it is enforced.
pub(super) struct RunRequest {
    pub(super) request: Request,
    pub(super) limits: Enforcement,
    /// The expected files below `/in`.
    pub(super) inputs: Vec<InputObservation>,
    /// The files that are expected at the targets of binds.
    pub(super) binds: Vec<ExpectedFile>,
}

impl RunRequest {
    /// The part that init needs.
    pub(super) fn build(&self) -> Build<'_> {
        Build {
            request: Cow::Borrowed(&self.request),
            rlimits: self.limits.rlimits_to_set(),
            processors: self.limits.processors,
        }
    }
}

pub(super) struct Building {
    pub(super) first: FirstProcess,
    pub(super) run: RunRequest,
    pub(super) deadline: Instant,
    /// The handle of `/out`, once there is one.
    pub(super) out: Option<OwnedFd>,
    pub(super) received: Received,
}

/// The messages that must arrive before the workload can go.
#[derive(Default)]
pub(super) struct Received {
    /// From init: it is ready. A plain child has no report.
    pub(super) init: Option<Option<InitReport>>,
    /// From the workload: its report.
    pub(super) workload: Option<WorkloadReport>,
    /// From the workload: it waits for `Go`.
    pub(super) waiting: Option<Waiting>,
}

/// The workload that waits for `Go`.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    pub(super) pid: i32,
    /// The descriptor, in the workload, of the listener for denied calls.
    pub(super) listener: Option<RawFd>,
}

pub(super) struct Running {
    pub(super) first: FirstProcess,
    pub(super) run: RunRequest,
    pub(super) workload: OwnedFd,
    pub(super) out: OwnedFd,
    /// What only a container has.
    pub(super) container: Option<ContainerHandles>,
    pub(super) observations: Observations,
    /// None if the filter does not report denied calls.
    pub(super) denied: Option<DeniedCalls>,
    /// None if a cgroup limits the memory.
    pub(super) watchdog: Option<MemoryWatchdog>,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    /// Why the supervisor ends the run, if it does.
    pub(super) ending: Option<Ending>,
}

pub(super) struct ContainerHandles {
    /// `/tmp`, to check at the end whether it is full.
    pub(super) tmp: OwnedFd,
    /// The mount namespace. While a handle is open, the last process of the run need not wait for the unmounting.
    pub(super) mounts: OwnedFd,
}

/// Why the supervisor ends a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    TimedOut,
    Cancelled,
    OverMemory,
}

pub(super) enum Ended {
    /// The workload was never started. `status` is that of the future workload, as `wait(2)` encodes it.
    NotStarted { first: Option<FirstProcess>, status: i32, cancelled: bool },
    /// The workload ran and ended.
    Finished { running: Box<Running>, status: i32, usage: Usage, wall: Duration },
}

impl Running {
    /// Checks the memory if no cgroup limits it and it is time; true if it exceeds the limit.
    pub(super) fn exceeds_memory(&mut self) -> Result<bool> {
        let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.is_due()) else {
            return Ok(false);
        };
        let files = match &self.container {
            Some(container) => Capacity::of(&self.out)?.used + Capacity::of(&container.tmp)?.used,
            None => 0,
        };
        Ok(watchdog.check(files))
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(
        host: bool,
        inside: Option<IdsInside>,
        cgroup: &'a RunCgroup,
        launcher: &'a UnixStream,
    ) -> Result<Self> {
        let identity = Identity::of_own_run_as(inside);
        if !host {
            identity.check()?;
        }
        let signals = sys::signalfd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
            .context("blocking signals")?;
        Ok(Run { host, identity, cgroup, launcher, signals, state: State::Preparing(None) })
    }

    /// Ends the run, whatever its state. `status` is that of the workload, as `wait(2)` encodes it.
    pub(super) fn set_ended(&mut self, status: i32, usage: Usage, cancelled: bool) {
        let not_started = |first| State::Ended(Ended::NotStarted { first, status, cancelled });
        self.state = match std::mem::replace(&mut self.state, State::Preparing(None)) {
            State::Preparing(first) => not_started(first),
            State::Building(building) => not_started(Some(building.first)),
            State::Running(running) => {
                let wall = running.started.elapsed();
                State::Ended(Ended::Finished { running, status, usage, wall })
            }
            ended @ State::Ended(_) => ended,
        };
    }

    /// Ends the run; its processes are then killed.
    pub(super) fn set_killed(&mut self, cancelled: bool) {
        self.set_ended(libc::SIGKILL, Usage::default(), cancelled);
    }
}

impl State {
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }

    /// Whether the workload was started.
    pub(super) fn has_started(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Ended(Ended::Finished { .. }))
    }

    /// Whether the supervisor itself ends the run, so that its processes need not be given time to exit.
    pub(super) fn is_being_ended(&self) -> bool {
        match self {
            Self::Running(running) | Self::Ended(Ended::Finished { running, .. }) => running.ending.is_some(),
            Self::Ended(Ended::NotStarted { cancelled, .. }) => *cancelled,
            Self::Preparing(_) | Self::Building(_) => false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Building(building) => Some(building.deadline),
            Self::Running(running) => Some(running.deadline),
            Self::Preparing(_) | Self::Ended(_) => None,
        }
    }

    /// The first process of the run, once it is started.
    pub(super) fn first(&self) -> Option<&FirstProcess> {
        match self {
            Self::Preparing(first) | Self::Ended(Ended::NotStarted { first, .. }) => first.as_ref(),
            Self::Building(building) => Some(&building.first),
            Self::Running(running) | Self::Ended(Ended::Finished { running, .. }) => Some(&running.first),
        }
    }

    pub(super) fn first_mut(&mut self) -> Option<&mut FirstProcess> {
        match self {
            Self::Preparing(first) | Self::Ended(Ended::NotStarted { first, .. }) => first.as_mut(),
            Self::Building(building) => Some(&mut building.first),
            Self::Running(running) | Self::Ended(Ended::Finished { running, .. }) => Some(&mut running.first),
        }
    }

    pub(super) fn running(&self) -> Option<&Running> {
        match self {
            Self::Running(running) => Some(running),
            _ => None,
        }
    }

    pub(super) fn running_mut(&mut self) -> Option<&mut Running> {
        match self {
            Self::Running(running) => Some(running),
            _ => None,
        }
    }
}
