//! The first process of a run, and the sockets to it and to the workload that it starts.

use crate::sys;
use invarlock_error::{Context as _, Result};
use rustix::event::{PollFd, PollFlags};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longest pause inside a message. A sender that stops in the middle of one must not block the supervisor.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The builder that becomes init, or the parent of a plain child.
pub(super) struct FirstProcess {
    pub(super) pid: i32,
    /// None after the end of the stream: the process is dead.
    pub(super) socket: Option<UnixStream>,
    /// None after the end of the stream: the workload is the program, or dead.
    pub(super) workload: Option<UnixStream>,
    /// How the process failed before the workload was started, as `wait(2)` encodes it.
    pub(super) early_end: Option<i32>,
}

/// Two pairs of connected sockets.
pub(super) struct Sockets {
    pub(super) first: UnixStream,
    pub(super) workload: UnixStream,
    /// The end of the first process.
    pub(super) first_end: UnixStream,
    /// The end of the workload.
    pub(super) workload_end: UnixStream,
}

impl Sockets {
    pub(super) fn new() -> Result<Self> {
        const DOING: &str = "creating a socket";
        let ((first, first_end), (workload, workload_end)) =
            (UnixStream::pair().context(DOING)?, UnixStream::pair().context(DOING)?);
        for socket in [&first, &workload] {
            socket.set_read_timeout(Some(MESSAGE_TIMEOUT)).context(DOING)?;
        }
        rustix::net::sockopt::set_socket_passcred(&workload, true).context(DOING)?;
        Ok(Sockets { first, workload, first_end, workload_end })
    }
}

impl FirstProcess {
    /// The supervisor's ends of the sockets; the other ends are closed.
    pub(super) fn new(pid: i32, sockets: Sockets) -> Self {
        let Sockets { first, workload, .. } = sockets;
        FirstProcess { pid, socket: Some(first), workload: Some(workload), early_end: None }
    }

    /// Whether a message, or the end of the stream, can be read from the process.
    pub(super) fn is_readable(&self) -> bool {
        self.socket.as_ref().is_some_and(is_readable)
    }

    /// Remembers a failure before the workload was started. A process that was killed could not report it.
    pub(super) fn note_early_end(&mut self, dead: &sys::Reaped) {
        let failed = libc::WIFSIGNALED(dead.status) || libc::WEXITSTATUS(dead.status) != 0;
        if failed && dead.pid == self.pid {
            self.early_end = Some(dead.status);
        }
    }
}

/// Whether a read from the socket would not block.
pub(super) fn is_readable(socket: &UnixStream) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
}
