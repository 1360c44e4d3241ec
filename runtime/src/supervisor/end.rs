//! The end of a run: every process dead, then the outcome.

use super::refusals::Refusals;
use super::{Ending, Run, RunRequest};
use crate::collect::{self, Collected};
use crate::limits::Room;
use crate::protocol::Done;
use crate::spec::{LimitName, Status, Usage};
use crate::{kernel, sys};
use invarlock_error::{Context as _, Error, Kind, Result};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long the rest of a run may take to die with its init.
const DYING: Duration = Duration::from_millis(20);

impl Run<'_> {
    /// Ends every process of the run and reaps it. Only then is anything of it read.
    pub(super) fn end(&mut self) -> Result<()> {
        if self.wall.is_zero() {
            self.wall = self.started.map_or(Duration::ZERO, |s| s.elapsed());
        }
        // On a busy machine the kernel closes a dead init's descriptors long before it can be reaped.
        let was_dead = self.init.is_none();
        (self.init, self.workload) = (None, None);
        let patience = Instant::now() + Duration::from_secs(30);
        // A run that ended or failed by itself is dying already; it is given that long before it is hit.
        let dying = Instant::now() + DYING;
        let mut hit = false;
        loop {
            match sys::reap() {
                Err(_) => return Ok(()),
                Ok(Some(dead)) => {
                    // Whoever lived until then was ended by us.
                    if !hit || was_dead {
                        self.note_early_end(&dead);
                    }
                    continue;
                }
                Ok(None) if Instant::now() > patience => {
                    return Err(Error::system("processes of the run do not die"));
                }
                Ok(None) => {}
            }
            if self.ending.is_some() || Instant::now() >= dying {
                hit = true;
                self.cgroup.kill()?;
                own_children()?.into_iter().for_each(|pid| sys::kill_child(pid, libc::SIGKILL));
            }
            wait_for_a_child(DYING);
        }
    }

    /// Remembers how init failed before the workload was started; one that was killed had no time to say so.
    pub(super) fn note_early_end(&mut self, dead: &sys::Reaped) {
        let failed = libc::WIFSIGNALED(dead.status) || libc::WEXITSTATUS(dead.status) != 0;
        if failed && self.started.is_none() && Some(dead.pid) == self.init_pid {
            self.early_end = Some(dead.status);
        }
    }

    /// Where init was killed, that is why everything else failed.
    pub(super) fn cause(&self, error: Error) -> Error {
        match (error.kind(), self.early_end) {
            (Kind::System, Some(status)) if libc::WIFSIGNALED(status) => self.no_workload(status),
            _ => error,
        }
    }

    /// Why there was never a workload; `status` is what init said of the process that was to become it.
    fn no_workload(&self, status: i32) -> Error {
        if self.ending == Some(Ending::Cancelled) {
            return Error::system("cancelled before the workload was started");
        }
        if self.cgroup.counted().oom_kills.is_some_and(|n| n > 0) {
            return Error::input("the memory limit is too small even to build the container; raise --memory");
        }
        let (who, status) = self.early_end.map_or(("future workload", status), |status| ("init", status));
        let how = match libc::WIFSIGNALED(status) {
            true => format!("was killed by signal {}", libc::WTERMSIG(status)),
            false => format!("ended with exit code {}", libc::WEXITSTATUS(status)),
        };
        Error::system(format!(
            "the {who} of the run {how} before the workload was started; the kernel's log may say why, and trying again may help"
        ))
    }

    /// What the launcher gets.
    pub(super) fn report(&mut self) -> Result<(Done, Vec<Collected>)> {
        let Some((status, mut usage)) = self.exited.take() else {
            return Err(Error::system("the run ended without an outcome"));
        };
        let Some(observations) = self.observations.take() else {
            return Err(self.no_workload(status));
        };
        usage.wall_ms = u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX);
        let counted = self.cgroup.counted();
        (usage.oom_kills, usage.forks_refused) = (counted.oom_kills, counted.forks_refused);
        let watched = self.watch.as_ref().map(|w| w.peak).filter(|p| Some(*p) > usage.peak_memory_bytes);
        for (peak, by) in [(watched, "watchdog"), (counted.peak_memory, "cgroup")] {
            if peak.is_some() {
                (usage.peak_memory_bytes, usage.peak_memory_by) = (peak, Some(by.into()));
            }
        }
        let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
        let status = match self.ending {
            Some(Ending::TimedOut) => Status::TimedOut,
            Some(Ending::Cancelled) => Status::Cancelled,
            Some(Ending::OverMemory) => Status::MemoryLimit,
            None if killed && counted.oom_kills.is_some_and(|n| n > 0) => Status::MemoryLimit,
            None if libc::WIFSIGNALED(status) => Status::Signaled(libc::WTERMSIG(status)),
            None => Status::Exited(libc::WEXITSTATUS(status)),
        };
        usage.limits_hit = self.limits_hit(status, &usage)?;
        let files = match (&self.out, &self.told) {
            (Some(out), Some(RunRequest { request, .. })) if request.collect_output => {
                collect::collect(out, &request.limits)?
            }
            _ => Vec::new(),
        };
        let output = files.iter().map(|f| (f.name.clone(), f.size)).collect();
        let (refused, learned) = self.refusals.take().map(Refusals::counts).unzip();
        let learned = learned.flatten();
        let timings = crate::hooks::timeline();
        Ok((Done { status, output, observations, usage, refused, learned, timings }, files))
    }
}

impl Run<'_> {
    /// The limits that were met, by what the kernel counted, by how the run ended, and by what is full now.
    fn limits_hit(&self, status: Status, usage: &Usage) -> Result<Vec<LimitName>> {
        let some = |count: Option<u64>| count.is_some_and(|n| n > 0);
        let container = !self.host;
        let room = |handle: &Option<OwnedFd>| match handle {
            Some(handle) if container => Room::of(handle).map(|room| room.full),
            _ => Ok((false, false)),
        };
        let (output, tmp) = (room(&self.out)?, room(&self.tmp)?);
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
}

/// Every child of this process: all of them are the run's.
pub(crate) fn own_children() -> Result<Vec<i32>> {
    let path = "/proc/thread-self/children";
    let text = kernel::read(path).with_context(|| format!("reading {path}"))?;
    Ok(text.split_whitespace().filter_map(|n| n.parse().ok()).filter(|pid| *pid > 1).collect())
}

/// Sleeps until a child dies (SIGCHLD is blocked and would wake us), at most `longest`.
fn wait_for_a_child(longest: Duration) {
    sys::wait_for_signal(libc::SIGCHLD, longest);
}
