//! The end of a run: kills and reaps every process, then creates the outcome.

use super::state::{Ended, Ending, Run, Running, State};
use crate::collect::{self, Collected};
use crate::limits::Capacity;
use crate::outcome::{Status, Usage};
use crate::procfs::own_children;
use crate::protocol::Done;
use crate::spec::LimitName;
use crate::sys;
use invarlock_error::{Error, Kind, Result, bail};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long the other processes of a run may take to die with its init before they are killed.
const DYING: Duration = Duration::from_millis(20);
/// How long killed processes may take to die.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// The successful end of a run.
pub(super) struct Report {
    pub(super) done: Done,
    pub(super) files: Vec<Collected>,
    /// The run's mount namespace. With a container only.
    pub(super) mounts: Option<OwnedFd>,
}

impl Run<'_> {
    /// Ends and reaps every process of the run. Only then is its output read.
    pub(super) fn end(&mut self) -> Result<()> {
        let mut was_dead = true;
        if let Some(first) = self.state.first_mut() {
            // On a busy machine the kernel closes a dead init's descriptors long before it can be reaped.
            was_dead = first.socket.is_none();
            (first.socket, first.workload) = (None, None);
        }
        let timeout = Instant::now() + KILL_TIMEOUT;
        // A run that ended or failed by itself is dying already, so it is not killed at once.
        let dying = Instant::now() + DYING;
        let mut killed = false;
        loop {
            match sys::reap() {
                Err(_) => return Ok(()),
                Ok(Some(dead)) => {
                    // A process that lived until it was killed here did not fail by itself.
                    if !killed || was_dead {
                        self.note_early_end(&dead);
                    }
                    continue;
                }
                Ok(None) if Instant::now() > timeout => bail!(System, "processes of the run did not die"),
                Ok(None) => {}
            }
            if self.state.is_being_ended() || Instant::now() >= dying {
                killed = true;
                self.cgroup.kill()?;
                own_children()?.into_iter().for_each(|pid| sys::kill_child(pid, libc::SIGKILL));
            }
            // SIGCHLD is blocked, so a dead child ends the wait.
            sys::wait_for_signal(libc::SIGCHLD, DYING);
        }
    }

    /// The cause of an error: if init was killed, everything else failed because of it. A system call that needs a living init is denied
    /// by then, which looks like a feature that the machine lacks.
    pub(super) fn cause(&self, error: Error) -> Error {
        match (error.kind(), self.early_end()) {
            (Kind::System | Kind::Unsupported, Some(status)) if libc::WIFSIGNALED(status) => {
                self.not_started(status)
            }
            _ => error,
        }
    }

    fn early_end(&self) -> Option<i32> {
        self.state.first().and_then(|first| first.early_end)
    }

    /// Why the workload was never started. `status` is that of the future workload, as init reported it.
    fn not_started(&self, status: i32) -> Error {
        if matches!(self.state, State::Ended(Ended::NotStarted { cancelled: true, .. })) {
            return Error::system("cancelled before the workload was started");
        }
        if self.cgroup.counters().oom_kills.is_some_and(|n| n > 0) {
            return Error::input("the memory limit is too small to build the container")
                .with_hint("raise --memory");
        }
        let (process, status) =
            self.early_end().map_or(("future workload", status), |status| ("init", status));
        let how = match libc::WIFSIGNALED(status) {
            true => format!("was killed by signal {}", libc::WTERMSIG(status)),
            false => format!("ended with exit code {}", libc::WEXITSTATUS(status)),
        };
        Error::system(format!("the {process} of the run {how} before the workload was started"))
            .with_hint("try again; the kernel's log may have the reason")
    }

    /// The outcome for the launcher.
    pub(super) fn report(mut self) -> Result<Report> {
        match std::mem::replace(&mut self.state, State::Preparing(None)) {
            State::Ended(Ended::Finished { running, status, usage, wall }) => {
                self.finished(*running, status, usage, wall)
            }
            State::Ended(Ended::NotStarted { first, status, cancelled }) => {
                self.state = State::Ended(Ended::NotStarted { first, status, cancelled });
                Err(self.not_started(status))
            }
            _ => bail!(System, "the run ended without an outcome"),
        }
    }

    fn finished(&self, running: Running, status: i32, mut usage: Usage, wall: Duration) -> Result<Report> {
        usage.wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let counters = self.cgroup.counters();
        (usage.oom_kills, usage.forks_refused) = (counters.oom_kills, counters.forks_refused);
        let watched = running.watchdog.as_ref().map(|watchdog| watchdog.peak);
        let watched = watched.filter(|peak| Some(*peak) > usage.peak_memory_bytes);
        for (peak, source) in [(watched, "watchdog"), (counters.peak_memory, "cgroup")] {
            if peak.is_some() {
                (usage.peak_memory_bytes, usage.peak_memory_by) = (peak, Some(source.into()));
            }
        }
        let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
        let status = match running.ending {
            Some(Ending::TimedOut) => Status::TimedOut,
            // A workload that handles SIGTERM ends by itself, with an exit code of its own.
            Some(Ending::Cancelled) if libc::WIFEXITED(status) => Status::Exited(libc::WEXITSTATUS(status)),
            Some(Ending::Cancelled) => Status::Cancelled,
            Some(Ending::OverMemory) => Status::MemoryLimit,
            None if killed && counters.oom_kills.is_some_and(|n| n > 0) => Status::MemoryLimit,
            None if libc::WIFSIGNALED(status) => Status::Signaled(libc::WTERMSIG(status)),
            None => Status::Exited(libc::WEXITSTATUS(status)),
        };
        usage.limits_hit = limits_hit(&running, status, &usage)?;
        let request = &running.run.request;
        let files = match request.collect_output {
            true => collect::collect(&running.out, &request.limits)?,
            false => Vec::new(),
        };
        let output = files.iter().map(|file| (file.name.clone(), file.size)).collect();
        let (denied_calls, profile_trace) = running.denied.map(|denied| denied.into_counts()).unzip();
        let profile_trace = profile_trace.flatten();
        let (observations, timings) = (running.observations, crate::hooks::timeline());
        let done = Done { status, output, observations, usage, denied_calls, profile_trace, timings };
        Ok(Report { done, files, mounts: running.container.map(|container| container.mounts) })
    }
}

/// The limits that were reached: by the counters, by the status, and by the free space of `/out` and `/tmp`.
fn limits_hit(running: &Running, status: Status, usage: &Usage) -> Result<Vec<LimitName>> {
    let some = |count: Option<u64>| count.is_some_and(|n| n > 0);
    let (output, tmp) = match &running.container {
        Some(container) => (Capacity::of(&running.out)?.full, Capacity::of(&container.tmp)?.full),
        None => ((false, false), (false, false)),
    };
    let all = [
        (LimitName::Memory, status == Status::MemoryLimit || some(usage.oom_kills)),
        (LimitName::Pids, some(usage.forks_refused)),
        (LimitName::Wall, status == Status::TimedOut),
        (LimitName::Output, output.0),
        (LimitName::OutputFiles, output.1),
        (LimitName::Tmp, tmp.0),
    ];
    Ok(all.into_iter().filter(|(_, hit)| *hit).map(|(name, _)| name).collect())
}
