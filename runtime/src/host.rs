//! Host execution: the same program as a plain child. No container; still a filter, limits, a supervisor, and evidence that says so.

use crate::builder::{die_with_supervisor, null_device};
use crate::init::Init;
use crate::protocol::{self, FromInit};
use crate::{cgroup, hooks, sys};
use invarlock_error::{Context as _, Result};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Becomes the parent of the program. Never comes back.
pub(crate) fn run(init: &Init, socket: &UnixStream, entrances: &[File], stdio: &[OwnedFd; 2]) -> ! {
    if let Err(error) = start(init, socket, entrances, stdio) {
        drop(protocol::send(socket, &FromInit::Failed(error), &[]));
    }
    sys::exit_now(1)
}

fn start(init: &Init, socket: &UnixStream, entrances: &[File], [out, err]: &[OwnedFd; 2]) -> Result<()> {
    die_with_supervisor(socket)?;
    hooks::step("init: host started");
    cgroup::enter(entrances)?;
    hooks::step("init: host cgroup entered");
    let fail = || "connecting the program's output".to_owned();
    rustix::stdio::dup2_stdin(null_device()?).with_context(fail)?;
    rustix::stdio::dup2_stdout(out).with_context(fail)?;
    rustix::stdio::dup2_stderr(err).with_context(fail)?;
    init.run_on_host()
}
