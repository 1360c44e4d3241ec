//! The end of a run: every process dead, then the outcome.

use super::{Ending, Run};
use crate::collect::{self, Collected};
use crate::error::{Doing as _, Error, Result};
use crate::protocol::Done;
use crate::spec::Status;
use crate::sys;
use std::time::{Duration, Instant};

impl Run<'_> {
    /// Ends every process of the run and reaps it. Only then is anything of it read.
    pub(super) fn end(&mut self) -> Result<()> {
        if self.wall.is_zero() {
            self.wall = self.started.map_or(Duration::ZERO, |s| s.elapsed());
        }
        (self.builder, self.init, self.workload) = (None, None, None);
        let patience = Instant::now() + Duration::from_secs(30);
        let mut killed = false;
        loop {
            match sys::reap() {
                Err(_) => return Ok(()),
                Ok(Some(_)) => continue,
                Ok(None) if Instant::now() > patience => {
                    return Err(Error::System("processes of the run do not die".into()));
                }
                Ok(None) => {}
            }
            // A run that ended by itself is dying already; give it that long before it is hit.
            if self.ending.is_some() || self.exited.is_none() || killed {
                self.cgroup.kill()?;
                own_children()?.into_iter().for_each(|pid| sys::kill_child(pid, libc::SIGKILL));
            }
            killed = true;
            wait_for_a_child(Duration::from_millis(20));
        }
    }

    /// What the launcher gets.
    pub(super) fn report(&mut self) -> Result<(Done, Vec<Collected>)> {
        let Some((status, mut usage)) = self.exited.take() else {
            return Err(Error::System("the run ended without an outcome".into()));
        };
        let Some(observations) = self.observations.take() else {
            return Err(match self.ending {
                Some(Ending::Cancelled) => Error::System("cancelled before the workload was started".into()),
                _ => Error::System("the container ended before the workload was started".into()),
            });
        };
        usage.wall_ms = u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX);
        let counted = self.cgroup.counted();
        usage.oom_kills = counted.oom_kills;
        if let Some(peak) = counted.peak_memory {
            (usage.peak_memory_bytes, usage.peak_memory_by) = (Some(peak), Some("cgroup".into()));
        }
        let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
        let status = match self.ending {
            Some(Ending::TimedOut) => Status::TimedOut,
            Some(Ending::Cancelled) => Status::Cancelled,
            None if killed && counted.oom_kills.is_some_and(|n| n > 0) => Status::MemoryLimit,
            None if libc::WIFSIGNALED(status) => Status::Signaled(libc::WTERMSIG(status)),
            None => Status::Exited(libc::WEXITSTATUS(status)),
        };
        let files = match &self.out {
            Some(out) if self.request.collect_output => collect::collect(out, &self.request.limits)?,
            _ => Vec::new(),
        };
        let output = files.iter().map(|f| (f.name.clone(), f.size)).collect();
        Ok((Done { status, output, observations, usage }, files))
    }
}

/// Every child of this process: all of them are the run's.
fn own_children() -> Result<Vec<i32>> {
    let path = "/proc/thread-self/children";
    let text = std::fs::read_to_string(path).doing(|| format!("reading {path}"))?;
    Ok(text.split_whitespace().filter_map(|n| n.parse().ok()).filter(|pid| *pid > 1).collect())
}

/// Sleeps until a child dies (SIGCHLD is blocked and would wake us), at most `longest`.
fn wait_for_a_child(longest: Duration) {
    sys::wait_for_signal(libc::SIGCHLD, longest);
}
