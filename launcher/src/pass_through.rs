//! The workload's output on its way to this process's standard streams.

use crate::error::{Context as _, Result};
use crate::ui;
use invarlock_runtime::Sink;

/// Passes on the workload's output: unchanged into files and pipes, with control characters escaped onto a terminal.
#[derive(Default)]
pub struct PassThrough {
    streams: [Stream; 2],
    /// Everything goes to standard error, because standard output is used otherwise.
    to_stderr: bool,
}

#[derive(Default)]
struct Stream {
    /// Bytes of a character that is not complete yet.
    rest: Vec<u8>,
    /// Why writing failed.
    failed: Option<std::io::Error>,
}

impl Stream {
    fn write(&mut self, mut to: impl std::io::Write, terminal: bool, bytes: &[u8]) {
        let result = if terminal {
            self.rest.extend_from_slice(bytes);
            let rest = self.rest.split_off(complete(&self.rest));
            let text = ui::printable(&String::from_utf8_lossy(&std::mem::replace(&mut self.rest, rest)));
            to.write_all(text.as_bytes())
        } else {
            to.write_all(bytes)
        };
        self.failed = result.and_then(|()| to.flush()).err();
    }
}

/// The number of bytes without an incomplete character at the end. Bytes that cannot be part of a character are counted.
fn complete(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let incomplete = std::str::from_utf8(last).is_err_and(|e| e.error_len().is_none());
    if incomplete { bytes.len() - last.len() } else { bytes.len() }
}

impl PassThrough {
    /// Passes on both streams to standard error.
    pub fn to_stderr() -> Self {
        PassThrough { to_stderr: true, ..PassThrough::default() }
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

impl Sink for PassThrough {
    fn stdout(&mut self, bytes: &[u8]) {
        if self.to_stderr {
            return self.stderr(bytes);
        }
        self.streams[0].write(std::io::stdout(), console::Term::stdout().is_term(), bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.streams[1].write(std::io::stderr(), console::Term::stderr().is_term(), bytes);
    }

    fn gone(&self) -> [bool; 2] {
        [if self.to_stderr { 1 } else { 0 }, 1].map(|i| self.streams[i].failed.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::{Stream, complete};

    #[test]
    fn keeps_characters_whole_and_escapes_control_characters() {
        let (mut stream, mut out) = (Stream::default(), Vec::new());
        for piece in
            ["ünï\u{1b}[2J\u{9b}31m\u{202e}€".as_bytes(), b"\x9b1m\xff", "ö".as_bytes()].concat().chunks(1)
        {
            stream.write(&mut out, true, piece);
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
