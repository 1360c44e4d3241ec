//! Reads the body of a response at the minimum rate.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use invarlock_error::Error;
use ureq::Timeout;

use crate::limits::{Deadlines, MAX_SMALL_PIECES, MIN_PIECE};
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
}

impl<'a, R: Read> BodyReader<'a, R> {
    pub fn new(url: &'a str, inner: R, deadlines: &'a Deadlines) -> Self {
        Self { url, inner, deadlines, left: deadlines.rate.interval, payload: 0, pieces: 0, total: 0 }
    }

    /// Reads the next piece; 0 bytes are the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Attempt<usize> {
        loop {
            let start = Instant::now();
            let read = deadline::within(self.left, || self.inner.read(buffer));
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
