//! Limits of sizes and times, and the reason for each number. docs/images.md lists them for users.

use std::time::Duration;

/// The size of the headers of a response.
pub(crate) const MAX_HEADERS: usize = 64 << 10;
/// The bytes that a peer may send before the client has a response, or the next byte of a body: headers, TLS handshakes, framing,
/// trailers. Six responses with the largest headers and their handshakes fit. A body may have as much framing as content in addition.
pub(crate) const MAX_OVERHEAD: usize = 1 << 20;
/// The size of a piece of a body that costs little to handle, even over a connection with the smallest packets. Smaller pieces cost more
/// time of the processor than of the network.
pub(crate) const MIN_PIECE: u64 = 64;
/// How many pieces may be small. A server may flush the start of a body in small pieces.
pub(crate) const MAX_SMALL_PIECES: u64 = 10_000;
/// An interrupted attempt that gained so many bytes of a blob does not count as failed: it cost the registry more than the next connection
/// costs the client.
pub(crate) const FREE_GAIN: u64 = 1 << 20;

/// Time limits for the registry, the hosts that it redirects to and its token server. Each part of an exchange has a limit, so none of
/// these hosts can hold a connection by sending slowly.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Deadlines {
    /// To resolve the name of a host.
    pub resolve: Duration,
    /// To connect to a host, including the TLS handshake.
    pub connect: Duration,
    /// How long a connection may stay silent.
    pub silence: Duration,
    /// To send the headers of a request, and to receive those of its response.
    pub headers: Duration,
    /// From a request to the headers of the last response, with all redirects. An upload has the time for its size in addition.
    pub exchange: Duration,
    /// The minimum rate of a body in either direction.
    pub rate: MinimumRate,
    /// After this time, a failed request is not repeated. A blob has the time for its size in addition.
    pub retries: Duration,
}

/// In each `interval`, a body must make progress by `bytes` or end. Only payload counts; framing and trailers do not.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs, reason = "a rate has these two numbers")]
pub struct MinimumRate {
    /// The payload in one interval.
    pub bytes: u64,
    /// The time for it.
    pub interval: Duration,
}

impl MinimumRate {
    /// The time that a body of `size` bytes may take.
    pub(crate) fn time_for(self, size: u64) -> Duration {
        let intervals = size.div_ceil(self.bytes.max(1)).max(1);
        self.interval.saturating_mul(u32::try_from(intervals).unwrap_or(u32::MAX))
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            // Two rounds over three name servers that do not answer take 18 s.
            resolve: Duration::from_secs(20),
            // A lost packet is sent again after 1, 3 and 7 s.
            connect: Duration::from_secs(10),
            // Registries verify an upload before they answer, and take up to some 20 s for a large one.
            silence: Duration::from_secs(30),
            // Twice the silence: headers come in one piece, or in two.
            headers: Duration::from_secs(60),
            // Three hosts that are as slow as the limits above allow, or six that are not.
            exchange: Duration::from_secs(180),
            // 70 kbit/s. Four connections at once work over a line of 300 kbit/s, and a break of 30 s is no failure.
            rate: MinimumRate { bytes: 512 << 10, interval: Duration::from_secs(60) },
            // Five attempts with the longest pauses that a busy registry may request (60 s), and their requests.
            retries: Duration::from_secs(600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_for_a_body_is_whole_intervals() {
        let rate = MinimumRate { bytes: 100, interval: Duration::from_secs(2) };
        for (size, seconds) in [(0, 2), (1, 2), (100, 2), (101, 4), (1000, 20)] {
            assert_eq!(rate.time_for(size), Duration::from_secs(seconds), "{size}");
        }
        rate.time_for(u64::MAX);
        MinimumRate { bytes: 0, ..rate }.time_for(u64::MAX);
    }
}
