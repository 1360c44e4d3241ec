//! What the workload tried and was refused: every call that its filter refuses is heard here, answered with `EPERM`, and counted.
//!
//! Where a profile is learned, [`super::learning`] answers; otherwise the answer is always the same, so nothing that the workload can
//! change while a call waits matters. There are as many names to count as the kernel has calls and address families, and a caller
//! waits for its answer, so counting is bounded in memory and time.

use super::learning::Learning;
use crate::spec::Learned;
use invarlock_error::{Context as _, Error, Result};
use invarlock_seccomp::{Arch, Listener, ResolvedProfile};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::PidfdGetfdFlags;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, RawFd};

/// Most calls answered before the supervisor looks at everything else again.
const BATCH: usize = 64;
const ROW: &str = "row \"system calls\": taking over the listener of refused calls";
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

pub(super) struct Refusals {
    listener: Listener,
    arch: Arch,
    counts: BTreeMap<String, u64>,
    /// Where the filter asks about every call.
    learning: Option<Learning>,
    /// Nobody is left who could try.
    over: bool,
}

impl Refusals {
    /// Takes the listener from the waiting workload, which has it as `number` until it becomes the program.
    pub(super) fn take(
        workload: BorrowedFd<'_>,
        number: RawFd,
        learning: Option<ResolvedProfile>,
    ) -> Result<Self> {
        let fd = rustix::process::pidfd_getfd(workload, number, PidfdGetfdFlags::empty());
        let fd = fd.map_err(|cause| match cause {
            Errno::NOSYS => Error::unsupported(format!("{ROW}: {cause}; this needs Linux 5.6 or newer")),
            Errno::PERM => Error::unsupported(format!(
                "{ROW}: {cause}; a security module forbids it: `sysctl kernel.yama.ptrace_scope` must not be 3"
            )),
            _ => Error::system(format!("{ROW}: {cause}")),
        })?;
        let listener = Listener::check(fd).map_err(|e| Error::integrity(format!("{ROW}: {e}")))?;
        let arch = Arch::native().context(ROW)?;
        let learning = learning.map(Learning::new).transpose()?;
        Ok(Refusals { listener, arch, counts: BTreeMap::new(), learning, over: false })
    }

    /// What is readable while a call waits; none when that can never be again.
    pub(super) fn readable(&self) -> Option<BorrowedFd<'_>> {
        (!self.over).then(|| self.listener.as_fd())
    }

    /// Answers the calls that wait, at most a batch of them.
    pub(super) fn answer(&mut self) -> Result<()> {
        for _ in 0..BATCH {
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&NOW)) {
                Err(Errno::INTR) => continue,
                other => drop(other.context("listening for refused calls")?),
            }
            let [seen] = fds.map(|fd| fd.revents());
            if !seen.contains(PollFlags::IN) {
                self.over |= !seen.is_empty();
                return Ok(());
            }
            let fail = || "listening for refused calls".to_owned();
            let Some(call) = self.listener.hear().with_context(fail)? else { continue };
            let refused = match &mut self.learning {
                Some(learning) => learning.answer(&self.listener, &call)?,
                None => self.listener.refuse(&call).with_context(fail).map(|()| true)?,
            };
            if refused {
                *self.counts.entry(call.name(self.arch)).or_default() += 1;
            }
        }
        Ok(())
    }

    /// The calls by name, with how often each was refused, and what was learned.
    pub(super) fn counts(self) -> (BTreeMap<String, u64>, Option<Learned>) {
        (self.counts, self.learning.map(Learning::learned))
    }
}
