//! Counts the denied calls of the workload. Its filter reports each by a seccomp user notification, which is answered here with `EPERM`.
//!
//! If the profile is traced, [`super::profile_trace`] answers. Otherwise the answer is always the same, so it does not matter that the
//! workload can change memory while a call waits. The number of names is bounded by the kernel's calls and address families, and a caller
//! waits for its answer, so counting is bounded in memory and time.

use super::profile_trace::Tracer;
use crate::outcome::ProfileTrace;
use invarlock_error::{Context as _, Error, Result};
use invarlock_seccomp::{Arch, Listener, ResolvedProfile};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::PidfdGetfdFlags;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};

/// Most calls that are answered before the supervisor handles other events.
const BATCH: usize = 64;
const TAKING: &str = "duplicating the listener for denied calls";
const RECEIVING: &str = "receiving denied calls";
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

pub(super) struct DeniedCalls {
    listener: Listener,
    arch: Arch,
    counts: BTreeMap<String, u64>,
    /// Answers instead, if the filter reports every call.
    tracer: Option<Tracer>,
    /// Whether no process has the filter any more.
    over: bool,
}

impl DeniedCalls {
    /// Duplicates the listener of the waiting workload, where it has this number until execve.
    pub(super) fn take(
        workload: BorrowedFd<'_>,
        number: RawFd,
        trace: Option<ResolvedProfile>,
    ) -> Result<Self> {
        let listener = duplicate(workload, number).in_control("system calls")?;
        let arch = Arch::native().context(TAKING).in_control("system calls")?;
        let tracer = trace.map(Tracer::new).transpose()?;
        Ok(DeniedCalls { listener, arch, counts: BTreeMap::new(), tracer, over: false })
    }

    /// The descriptor that is readable while a call waits; none if there can be no further call.
    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        (!self.over).then(|| self.listener.as_fd())
    }

    /// Answers the waiting calls, at most a batch.
    pub(super) fn answer(&mut self) -> Result<()> {
        for _ in 0..BATCH {
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&NOW)) {
                Err(Errno::INTR) => continue,
                other => drop(other.context(RECEIVING)?),
            }
            let [events] = fds.map(|fd| fd.revents());
            if !events.contains(PollFlags::IN) {
                self.over |= !events.is_empty();
                return Ok(());
            }
            let Some(call) = self.listener.receive().context(RECEIVING)? else { continue };
            let denied = match &mut self.tracer {
                Some(tracer) => tracer.answer(&self.listener, &call)?,
                None => self.listener.deny(&call).context(RECEIVING).map(|()| true)?,
            };
            if denied {
                *self.counts.entry(call.name(self.arch)).or_default() += 1;
            }
        }
        Ok(())
    }

    /// The denied calls by name with their number, and the trace of the profile.
    pub(super) fn into_counts(self) -> (BTreeMap<String, u64>, Option<ProfileTrace>) {
        (self.counts, self.tracer.map(Tracer::into_trace))
    }
}

fn duplicate(workload: BorrowedFd<'_>, number: RawFd) -> Result<Listener> {
    let fd: OwnedFd = match rustix::process::pidfd_getfd(workload, number, PidfdGetfdFlags::empty()) {
        Ok(fd) => fd,
        Err(errno) => {
            let error = Error::from(errno).context(TAKING);
            return Err(match errno {
                Errno::NOSYS => error
                    .without_hint()
                    .with_kind(invarlock_error::Kind::Unsupported)
                    .with_hint("install Linux 5.6 or newer"),
                Errno::PERM => error.with_kind(invarlock_error::Kind::Unsupported).with_hint(
                    "a security module forbids it: `sysctl kernel.yama.ptrace_scope` must not be 3",
                ),
                _ => error,
            });
        }
    };
    Listener::check(fd).map_err(|error| error.with_kind(invarlock_error::Kind::Integrity).context(TAKING))
}
