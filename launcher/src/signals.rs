//! Ctrl-C and friends as a file descriptor that becomes readable, so that a waiting container run can be ended in order.

use crate::error::{Error, Kind, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Catches SIGINT, SIGTERM and SIGHUP, but for those that our caller had us ignore (`nohup`, a script's background job). A second signal while the first is being obeyed ends the process at once; the
/// supervisor of a running container then cleans up after it.
pub struct Signals {
    readable: UnixStream,
    caught: Arc<AtomicUsize>,
}

impl Signals {
    /// Starts catching.
    pub fn catch() -> Result<Self> {
        let failed = |e: std::io::Error| Error::from(e).context("catching signals");
        let (readable, writable) = UnixStream::pair().map_err(failed)?;
        let again = Arc::new(AtomicBool::new(false));
        let caught = Arc::new(AtomicUsize::new(0));
        let ignored = ignored();
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|s| ignored & (1 << (s - 1)) == 0) {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&again)).map_err(failed)?;
            signal_hook::flag::register(signal, Arc::clone(&again)).map_err(failed)?;
            signal_hook::flag::register_usize(signal, Arc::clone(&caught), signal as usize)
                .map_err(failed)?;
            let end = writable.try_clone().map_err(failed)?;
            signal_hook::low_level::pipe::register(signal, end).map_err(failed)?;
        }
        Ok(Signals { readable, caught })
    }

    /// Readable once a signal came.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }

    /// Fails with `Interrupted` once a signal came; `kept` says what stays behind.
    pub fn check(&self, kept: &str) -> Result<()> {
        match self.caught.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => Err(interrupted(signal as i32, kept)),
        }
    }
}

/// The signals that are ignored, as `/proc/self/status` has them: bit 0 is signal 1.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn interrupted(signal: i32, kept: &str) -> Error {
    let name = match signal {
        SIGINT => "SIGINT",
        SIGTERM => "SIGTERM",
        _ => "SIGHUP",
    };
    Error::new(Kind::Interrupted(signal), format!("stopped by {name}; no container is left running; {kept}"))
}
