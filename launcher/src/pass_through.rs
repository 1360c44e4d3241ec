//! The workload's output on its way to this process's standard streams.

use crate::error::{Context as _, Result};
use crate::signals::Signals;
use crate::ui;
use invarlock_runtime::Sink;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd as _, BorrowedFd};

/// Passes on the workload's output: unchanged into files and pipes, with control characters escaped onto a terminal unless it is `raw`. After a signal, output
/// that nothing reads is discarded, so that the run can be ended.
pub struct PassThrough<'a> {
    streams: [Stream; 2],
    /// Everything goes to standard error, because standard output is used otherwise.
    to_stderr: bool,
    /// Nothing is escaped: the workload writes to a terminal.
    raw: bool,
    /// Readable after a signal.
    stop: BorrowedFd<'a>,
}

#[derive(Default)]
struct Stream {
    /// Bytes of a character that is not complete yet.
    rest: Vec<u8>,
    /// Why writing failed.
    failed: Option<std::io::Error>,
}

impl Stream {
    fn write(&mut self, to: &mut dyn FnMut(&[u8]) -> std::io::Result<()>, terminal: bool, bytes: &[u8]) {
        let result = if terminal {
            self.rest.extend_from_slice(bytes);
            let rest = self.rest.split_off(complete(&self.rest));
            let text = ui::printable(&String::from_utf8_lossy(&std::mem::replace(&mut self.rest, rest)));
            to(text.as_bytes())
        } else {
            to(bytes)
        };
        self.failed = result.err();
    }
}

/// Most bytes that are written at once: a pipe that is ready takes them without blocking.
const PIECE: usize = rustix::pipe::PIPE_BUF;

/// Writes `bytes` when `to` is ready; discards the rest once `stop` is readable while `to` is not ready.
fn write_until_stopped(to: BorrowedFd<'_>, stop: BorrowedFd<'_>, bytes: &[u8]) -> std::io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut fds =
            [PollFd::from_borrowed_fd(to, PollFlags::OUT), PollFd::from_borrowed_fd(stop, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => drop(other?),
        }
        let [ready, stopped] = fds.map(|fd| !fd.revents().is_empty());
        if !ready && stopped {
            return Ok(());
        }
        match rustix::io::write(to, &rest[..rest.len().min(PIECE)]) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            written => rest = &rest[written?..],
        }
    }
    Ok(())
}

/// The number of bytes without an incomplete character at the end. Bytes that cannot be part of a character are counted.
fn complete(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let incomplete = std::str::from_utf8(last).is_err_and(|e| e.error_len().is_none());
    if incomplete { bytes.len() - last.len() } else { bytes.len() }
}

impl<'a> PassThrough<'a> {
    /// Passes on each stream to its own.
    pub fn new(signals: &'a Signals) -> Self {
        PassThrough { streams: Default::default(), to_stderr: false, raw: false, stop: signals.fd() }
    }

    /// Passes on both streams to standard error.
    pub fn to_stderr(signals: &'a Signals) -> Self {
        PassThrough { to_stderr: true, ..PassThrough::new(signals) }
    }

    /// Passes on each stream to its own, without escaping anything. For a workload on a terminal, which draws on it.
    pub fn raw(signals: &'a Signals) -> Self {
        PassThrough { raw: true, ..PassThrough::new(signals) }
    }

    fn pass(&mut self, stream: usize, to: BorrowedFd<'_>, terminal: &console::Term, bytes: &[u8]) {
        let stop = self.stop;
        let mut write = |bytes: &[u8]| write_until_stopped(to, stop, bytes);
        self.streams[stream].write(&mut write, terminal.is_term() && !self.raw, bytes);
    }

    /// Fails if writing failed for a reason other than a closed pipe, such as a full disk.
    pub fn check(&mut self) -> Result<()> {
        let failed = self.streams.iter_mut().find_map(|stream| stream.failed.take());
        match failed.filter(|e| e.kind() != std::io::ErrorKind::BrokenPipe) {
            Some(e) => Err(e).context("writing the output of the workload"),
            None => Ok(()),
        }
    }
}

impl Sink for PassThrough<'_> {
    fn stdout(&mut self, bytes: &[u8]) {
        if self.to_stderr {
            return self.stderr(bytes);
        }
        self.pass(0, std::io::stdout().as_fd(), &console::Term::stdout(), bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.pass(1, std::io::stderr().as_fd(), &console::Term::stderr(), bytes);
    }

    fn gone(&self) -> [bool; 2] {
        [if self.to_stderr { 1 } else { 0 }, 1].map(|i| self.streams[i].failed.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::{Stream, complete, write_until_stopped};
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn signal_discards_output_that_nothing_reads() {
        let (_reader, writer) = rustix::pipe::pipe().expect("a pipe");
        let (stop, mut signal) = UnixStream::pair().expect("a socket");
        signal.write_all(b"x").expect("a signal");
        // Far more than a pipe holds.
        write_until_stopped(writer.as_fd(), stop.as_fd(), &vec![0; 1 << 20]).expect("discarded");
    }

    #[test]
    fn keeps_characters_whole_and_escapes_control_characters() {
        let (mut stream, mut out) = (Stream::default(), Vec::new());
        for piece in
            ["ünï\u{1b}[2J\u{9b}31m\u{202e}€".as_bytes(), b"\x9b1m\xff", "ö".as_bytes()].concat().chunks(1)
        {
            let mut write = |bytes: &[u8]| std::io::Write::write_all(&mut out, bytes);
            stream.write(&mut write, true, piece);
        }
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "ünï\\u{1b}[2J\\u{9b}31m\\u{202e}€\u{fffd}1m\u{fffd}ö"
        );
        assert_eq!(complete("€".as_bytes()), 3);
        assert_eq!(complete(&"€".as_bytes()[..2]), 0);
        assert_eq!(complete(b"ab\xff"), 3, "0xff starts no character");
    }
}
