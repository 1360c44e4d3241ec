//! The deadline and the overhead limit of the current thread's network I/O.
//!
//! `ureq` limits the time of each phase of a request, but not the rate of a body: while it reads trailers or the extensions of a chunk, it
//! does not return. It does all I/O on the thread that calls it. So the caller sets the limits for its thread, and the transport below TLS
//! applies them to each read and write.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use ureq::Timeout;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use crate::limits::MAX_OVERHEAD;

/// The limits of the I/O in progress.
#[derive(Clone, Copy)]
struct Limits {
    deadline: Instant,
    /// The bytes that may still be received.
    bytes: usize,
}

thread_local! {
    static LIMITS: Cell<Option<Limits>> = const { Cell::new(None) };
}

/// Runs `io`. After `time`, its network I/O fails with [`Timeout::Global`]; after [`MAX_OVERHEAD`] received bytes, with [`TooMuchOverhead`].
pub(crate) fn within<T>(time: Duration, io: impl FnOnce() -> T) -> T {
    within_counted(time, io).0
}

/// Like [`within`]. Also returns the number of received bytes.
pub(crate) fn within_counted<T>(time: Duration, io: impl FnOnce() -> T) -> (T, usize) {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            LIMITS.set(None);
        }
    }
    let _reset = Reset;
    LIMITS.set(Some(Limits { deadline: after(time), bytes: MAX_OVERHEAD }));
    let done = io();
    (done, LIMITS.get().map_or(0, |limits| MAX_OVERHEAD - limits.bytes))
}

/// The time when `time` from now and the current thread's deadline have not passed.
pub(crate) fn earliest(time: Duration) -> Instant {
    LIMITS.get().map_or_else(|| after(time), |limits| limits.deadline.min(after(time)))
}

fn after(time: Duration) -> Instant {
    // The clock cannot represent every sum.
    Instant::now() + time.min(Duration::from_secs(1 << 31))
}

/// The peer sent more framing than [`MAX_OVERHEAD`] allows.
#[derive(Debug)]
pub(crate) struct TooMuchOverhead;

impl fmt::Display for TooMuchOverhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {MAX_OVERHEAD} bytes of headers, framing or trailers")
    }
}

impl std::error::Error for TooMuchOverhead {}

/// Applies the current thread's limits to connections.
#[derive(Debug)]
pub(crate) struct LimitedConnector;

impl<In: Transport> Connector<In> for LimitedConnector {
    type Out = LimitedTransport<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(LimitedTransport))
    }
}

/// A connection that applies the current thread's limits.
#[derive(Debug)]
pub(crate) struct LimitedTransport<T>(T);

fn limited(mut timeout: NextTimeout) -> Result<NextTimeout, ureq::Error> {
    let Some(limits) = LIMITS.get() else { return Ok(timeout) };
    let left = limits.deadline.saturating_duration_since(Instant::now());
    if left < *timeout.after {
        (timeout.after, timeout.reason) = (left.into(), Timeout::Global);
    }
    match limits.bytes {
        0 => Err(ureq::Error::Other(Box::new(TooMuchOverhead))),
        _ => Ok(timeout),
    }
}

impl<T: Transport> Transport for LimitedTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, limited(timeout)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let (limits, before) = (LIMITS.get(), self.0.buffers().input().len());
        let progress = self.0.await_input(limited(timeout)?)?;
        let received = self.0.buffers().input().len().saturating_sub(before);
        // In a tunnel through a proxy, the connection to the proxy has counted the same bytes. They count once.
        LIMITS.set(limits.map(|limits| Limits { bytes: limits.bytes.saturating_sub(received), ..limits }));
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
