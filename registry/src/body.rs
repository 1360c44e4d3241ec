//! Reads the body of a response at the minimum rate.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use invarlock_error::Error;
use ureq::Timeout;

use crate::limits::{Deadlines, MAX_OVERHEAD, MAX_SMALL_PIECES, MIN_PIECE};
use crate::retry::Attempt;
use crate::url::authority;
use crate::{deadline, transport_error};

/// The body of a response from `url`. The time that the caller needs for what it reads does not count.
pub(crate) struct BodyReader<'a, R> {
    url: &'a str,
    inner: R,
    deadlines: &'a Deadlines,
    /// The rest of the current interval, and the payload in it.
    left: Duration,
    payload: u64,
    /// Of the whole body.
    pieces: u64,
    total: u64,
    /// What was received for it, including framing and TLS.
    received: u64,
}

impl<'a, R: Read> BodyReader<'a, R> {
    pub fn new(url: &'a str, inner: R, deadlines: &'a Deadlines) -> Self {
        Self {
            url,
            inner,
            deadlines,
            left: deadlines.rate.interval,
            payload: 0,
            pieces: 0,
            total: 0,
            received: 0,
        }
    }

    /// Reads the next piece; 0 bytes are the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Attempt<usize> {
        loop {
            let start = Instant::now();
            let (read, received) = deadline::within_counted(self.left, || self.inner.read(buffer));
            self.received += received as u64;
            self.left = self.left.saturating_sub(start.elapsed());
            match read {
                Ok(0) => return Ok(0),
                Ok(read) => {
                    self.check_progress(read as u64)?;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(match error.into() {
                        ureq::Error::Timeout(Timeout::Global) => self.too_slow(),
                        error => transport_error::from_ureq(self.url, error, self.deadlines),
                    });
                }
            }
        }
    }

    fn check_progress(&mut self, read: u64) -> Attempt<()> {
        (self.pieces, self.total, self.payload) = (self.pieces + 1, self.total + read, self.payload + read);
        if self.pieces > MAX_SMALL_PIECES && self.total < self.pieces * MIN_PIECE {
            let host = authority(self.url);
            return Err(Error::safety(format!(
                "{host} sends its response in {} pieces of fewer than {MIN_PIECE} bytes on average",
                self.pieces
            ))
            .into());
        }
        if self.received > 2 * self.total + MAX_OVERHEAD as u64 {
            let (host, received) = (authority(self.url), self.received);
            return Err(Error::safety(format!(
                "{host} sends its response with more framing than content: {received} bytes for {}",
                self.total
            ))
            .into());
        }
        if self.payload >= self.deadlines.rate.bytes {
            (self.left, self.payload) = (self.deadlines.rate.interval, 0);
        } else if self.left.is_zero() {
            return Err(self.too_slow());
        }
        Ok(())
    }

    fn too_slow(&self) -> crate::retry::RequestError {
        transport_error::slow_body(self.url, self.payload, self.deadlines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MinimumRate;
    use crate::retry::RequestError;
    use invarlock_error::{Kind, Result};

    /// A body of `size` bytes that arrives in pieces of `piece` bytes, each after `pause`.
    struct Pieces {
        size: usize,
        piece: usize,
        pause: Duration,
    }

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(self.pause);
            let read = self.piece.min(buffer.len()).min(self.size);
            self.size -= read;
            Ok(read)
        }
    }

    /// Reads the body at 1000 bytes per 100 ms. After each piece the caller is busy for `busy`. Returns the size, or the error.
    fn read_all(body: Pieces, busy: Duration) -> Result<u64> {
        let rate = MinimumRate { bytes: 1000, interval: Duration::from_millis(100) };
        let deadlines = Deadlines { rate, ..Deadlines::default() };
        let mut reader = BodyReader::new("https://host.example/", body, &deadlines);
        let mut buffer = [0; 4096];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(reader.total),
                Ok(_) => std::thread::sleep(busy),
                Err(RequestError::Permanent(error) | RequestError::Transient(error, _)) => return Err(error),
            }
        }
    }

    #[test]
    fn many_small_pieces_are_refused() {
        let body = |piece| Pieces { size: 2 << 20, piece, pause: Duration::ZERO };
        for piece in [1, 63] {
            let error = read_all(body(piece), Duration::ZERO).expect_err("small pieces");
            assert_eq!(error.kind(), Kind::Safety, "{error}");
        }
        assert_eq!(read_all(body(64), Duration::ZERO).expect("large pieces"), 2 << 20);
        let few = Pieces { size: 10_000, piece: 1, pause: Duration::ZERO };
        assert_eq!(read_all(few, Duration::ZERO).expect("few pieces"), 10_000);
    }

    #[test]
    fn time_of_the_caller_does_not_count() {
        let fast = Pieces { size: 5000, piece: 500, pause: Duration::from_millis(1) };
        assert_eq!(read_all(fast, Duration::from_millis(80)).expect("the caller is slow"), 5000);
        let slow = Pieces { size: 5000, piece: 100, pause: Duration::from_millis(30) };
        let error = read_all(slow, Duration::ZERO).expect_err("the peer is slow");
        assert!(error.kind() == Kind::System && error.hint().is_some(), "{error}");
    }
}
