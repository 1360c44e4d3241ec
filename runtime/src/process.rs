//! What the processes of a run have in common: they die with their supervisor and pass on no descriptor.

use crate::failure::SystemCall as _;
use crate::{hooks, sys};
use invarlock_error::{Context as _, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Requests SIGKILL at the death of the supervisor, and ends this process if the supervisor is already dead.
pub(crate) fn die_with_supervisor(socket: &UnixStream) -> Result<()> {
    if !hooks::off("parent death signal") {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .context("requesting a signal at the death of the supervisor")?;
    }
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    rustix::event::poll(&mut fds, Some(&now)).context("checking whether the supervisor lives")?;
    if fds[0].revents().contains(PollFlags::HUP) {
        sys::exit_now(1);
    }
    Ok(())
}

/// Requests SIGKILL at the death of `parent`; false if it is already dead.
pub(crate) fn die_with(parent: rustix::process::Pid) -> bool {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_ok()
        && rustix::process::getppid() == Some(parent)
}

/// Makes every descriptor from 3 up close at execve.
pub(crate) fn close_descriptors_on_exec() -> Result<()> {
    sys::cloexec_from_3()
        .or_unsupported(
            || "marking open descriptors to be closed at execve".into(),
            invarlock_error::MISSING_CALL,
        )
        .in_control("descriptors")
}

pub(crate) fn null_device() -> Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("opening /dev/null")
}
