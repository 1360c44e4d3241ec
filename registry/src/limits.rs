//! Limits of sizes and times that more than one module needs.

use std::time::Duration;

/// The size of the headers of a response.
pub(crate) const MAX_HEADERS: usize = 64 << 10;
/// The time to connect to a host.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
