//! Messages of the future workload to the supervisor, and the supervisor's replies: one byte, for some messages a payload.
//!
//! Once the filter is installed the workload sends only with `write(2)` and waits only with `read(2)`, which every profile allows.
//! This file is the only one that knows the bytes.

use super::FromInit;
use super::frame::{receive, send};
use crate::observations::WorkloadReport;
use invarlock_error::{Context as _, Error, Result, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;

const REPORT: u8 = b'S';
const READY: u8 = b'R';
const EXEC_FAILED: u8 = b'E';
const FAILED: u8 = b'X';

/// The supervisor's replies. The builder waits for one before it uses its ids, the workload before it becomes the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// To the builder: its id maps are written.
    IdsMapped,
    /// To the workload: the boundary is as requested.
    Go,
}

impl Reply {
    const fn byte(self) -> u8 {
        match self {
            Self::IdsMapped => b'M',
            Self::Go => b'G',
        }
    }

    /// Sends the reply.
    pub(crate) fn send(self, mut to: &UnixStream) -> std::io::Result<()> {
        to.write_all(&[self.byte()])
    }

    /// Waits for this reply. An end of the stream or another byte is an error.
    pub(crate) fn wait(self, from: &UnixStream) -> std::io::Result<()> {
        let mut byte = [0];
        let read = loop {
            match rustix::io::read(from, &mut byte) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        match read == 1 && byte == [self.byte()] {
            true => Ok(()),
            false => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A message of the future workload.
#[derive(Debug)]
pub(crate) enum FromWorkload {
    /// Before the filter: what the process observed of itself.
    Report(WorkloadReport),
    /// The filter is installed. `pid` is the sender in the reader's pid namespace; `listener` is the descriptor, in the sender, of the
    /// listener for denied calls.
    Ready { pid: i32, listener: Option<RawFd> },
    /// The program could not be executed.
    ExecFailed { errno: i32 },
    /// A step before the filter failed.
    Failed(Error),
}

impl FromWorkload {
    /// Receives one message; none if the sender is gone or, on a non-blocking socket, has sent nothing.
    pub(crate) fn receive(from: &UnixStream) -> Result<Option<Self>> {
        let Some((byte, pid)) = receive_byte(from)? else { return Ok(None) };
        let message = match byte {
            REPORT => match receive(from)? {
                Some((report, _)) => Self::Report(report),
                None => return Ok(None),
            },
            READY => {
                let number = receive_number(from).context("waiting for the workload")?;
                Self::Ready { pid, listener: (number >= 0).then_some(number) }
            }
            EXEC_FAILED => Self::ExecFailed {
                errno: receive_number(from).context("receiving why the program did not start")?,
            },
            _ => match receive(from)? {
                Some((FromInit::Failed(error), _)) => Self::Failed(error),
                _ => bail!(System, "the workload could not be started and did not report why"),
            },
        };
        Ok(Some(message))
    }
}

/// One byte, and the sender's process id in the reader's pid namespace.
fn receive_byte(from: &UnixStream) -> Result<Option<(u8, i32)>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        match recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::AGAIN) => return Ok(None),
            other => other.context("waiting for the workload")?,
        };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut pid = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmCredentials(sender) = message {
            pid = Some(sender.pid.as_raw_nonzero().get());
        }
    }
    match pid {
        Some(pid) => Ok(Some((byte[0], pid))),
        None => bail!(System, "the message of the workload came without credentials"),
    }
}

fn receive_number(mut from: &UnixStream) -> std::io::Result<i32> {
    let mut number = [0; 4];
    from.read_exact(&mut number)?;
    Ok(i32::from_le_bytes(number))
}

fn with_number(byte: u8, number: i32) -> [u8; 5] {
    let [a, b, c, d] = number.to_le_bytes();
    [byte, a, b, c, d]
}

/// The future workload's end of its socket.
pub(crate) struct WorkloadSocket<'a>(pub(crate) &'a UnixStream);

impl WorkloadSocket<'_> {
    /// Sends [`FromWorkload::Report`].
    pub(crate) fn report(&self, report: &WorkloadReport) -> Result<()> {
        self.0.write_byte(REPORT).context("reporting on the workload")?;
        send(self.0, report, &[])
    }

    /// Sends [`FromWorkload::Failed`], as far as the supervisor is alive and an installed filter allows it.
    pub(crate) fn failed(&self, error: Error) {
        _ = self.0.write_byte(FAILED);
        drop(send(self.0, &FromInit::Failed(error), &[]));
    }

    /// Sends [`FromWorkload::Ready`] under the filter and waits for [`Reply::Go`]. True if it came.
    pub(crate) fn ready(&self, listener: Option<RawFd>) -> bool {
        let message = with_number(READY, listener.unwrap_or(-1));
        rustix::io::write(self.0, &message).is_ok() && Reply::Go.wait(self.0).is_ok()
    }

    /// Sends [`FromWorkload::ExecFailed`] under the filter.
    pub(crate) fn exec_failed(&self, errno: i32) {
        _ = rustix::io::write(self.0, &with_number(EXEC_FAILED, errno));
    }
}

trait WriteByte {
    fn write_byte(&self, byte: u8) -> rustix::io::Result<()>;
}

impl WriteByte for UnixStream {
    /// With `write(2)`, because the standard library uses `sendto(2)`, which a filter may deny.
    fn write_byte(&self, byte: u8) -> rustix::io::Result<()> {
        rustix::io::write(self, &[byte]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (supervisor, workload) = UnixStream::pair().expect("sockets");
        rustix::net::sockopt::set_socket_passcred(&supervisor, true).expect("credentials");
        (supervisor, workload)
    }

    #[test]
    fn ready_has_the_pid_of_its_sender_and_the_listener() {
        for (sent, received) in [(Some(7), Some(7)), (None, None)] {
            let (supervisor, workload) = pair();
            // The reply waits in the socket, so nothing blocks.
            Reply::Go.send(&supervisor).expect("a reply");
            assert!(WorkloadSocket(&workload).ready(sent));
            match FromWorkload::receive(&supervisor).expect("a message") {
                Some(FromWorkload::Ready { pid, listener }) => {
                    assert_eq!((pid.unsigned_abs(), listener), (std::process::id(), received));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn another_reply_is_not_go() {
        let (supervisor, workload) = pair();
        Reply::IdsMapped.send(&supervisor).expect("a reply");
        assert!(!WorkloadSocket(&workload).ready(None));
    }

    #[test]
    fn failures_keep_their_reason() {
        let (supervisor, workload) = pair();
        WorkloadSocket(&workload).exec_failed(libc::ENOENT);
        WorkloadSocket(&workload).failed(Error::input("no such directory"));
        let received = FromWorkload::receive(&supervisor).expect("a message");
        assert!(matches!(received, Some(FromWorkload::ExecFailed { errno: libc::ENOENT })), "{received:?}");
        let received = FromWorkload::receive(&supervisor).expect("a message");
        assert!(
            matches!(&received, Some(FromWorkload::Failed(e)) if e.kind() == invarlock_error::Kind::Input)
        );
        drop(workload);
        assert!(FromWorkload::receive(&supervisor).expect("the end").is_none());
    }
}
