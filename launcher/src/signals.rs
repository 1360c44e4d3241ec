//! Termination signals as a file descriptor that becomes readable, so that a run can be ended in order.

use crate::error::{Context as _, Error, Kind, Result};
use invarlock_runtime::ContainerSpec;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Signals that end a run.
const ENDING: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
/// Signals that would end this process and leave the run to its supervisor. They have no effect.
const WITHOUT_EFFECT: [i32; 2] = [SIGUSR1, SIGUSR2];
/// How long after a signal, and after the time that a workload has to end, this process may take to end the run. Then the process ends, even
/// if it waits for a reader of its output, and the supervisor cleans up.
const LATEST: Duration = Duration::from_secs(7);

/// Catches the signals that end a run, except those that the caller of this process had set to be ignored (`nohup`, a background job of a
/// script). A second signal ends the process at once; the supervisor of a running container then cleans up.
pub struct Signals {
    readable: UnixStream,
    caught: Arc<AtomicUsize>,
}

impl Signals {
    /// Starts catching.
    pub fn catch() -> Result<Self> {
        Self::catch_for(ContainerSpec::STOP_TIMEOUT)
    }

    /// Starts catching, for a workload that has this time to end.
    pub fn catch_for(stop_timeout: Duration) -> Result<Self> {
        Self::register(stop_timeout + LATEST).context("catching signals")
    }

    fn register(latest: Duration) -> std::io::Result<Self> {
        let (readable, writable) = UnixStream::pair()?;
        let again = Arc::new(AtomicBool::new(false));
        let caught = Arc::new(AtomicUsize::new(0));
        let ignored = ignored();
        for signal in WITHOUT_EFFECT {
            signal_hook::flag::register(signal, Arc::default())?;
        }
        let (waiting, after) = UnixStream::pair()?;
        for signal in ENDING.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0) {
            signal_hook::low_level::pipe::register(signal, after.try_clone()?)?;
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&again))?;
            signal_hook::flag::register(signal, Arc::clone(&again))?;
            signal_hook::flag::register_usize(signal, Arc::clone(&caught), signal as usize)?;
            signal_hook::low_level::pipe::register(signal, writable.try_clone()?)?;
        }
        let signal = Arc::clone(&caught);
        // If no thread can be created, a second signal does the same.
        _ = std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || end_late(&waiting, &signal, latest));
        Ok(Signals { readable, caught })
    }

    /// Readable after a signal.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }

    /// Fails with [`Kind::Interrupted`] after a signal; `kept` names what stays on disk.
    pub fn check(&self, kept: &str) -> Result<()> {
        match self.caught.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => Err(interrupted(signal as i32, kept)),
        }
    }
}

/// Has this process get SIGTERM when the process that started it ends, even if that is killed.
pub fn end_with_parent(parent: u32) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context("following the process that started this one")?;
    let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    match i64::from(now) == i64::from(parent) {
        true => Ok(()),
        false => Err(interrupted(SIGTERM, "the process that started it has ended")),
    }
}

/// Waits for a signal, and ends this process if it lives long after it.
fn end_late(mut waiting: &UnixStream, signal: &AtomicUsize, latest: Duration) {
    if matches!(waiting.read(&mut [0]), Ok(1)) {
        std::thread::sleep(latest);
        std::process::exit(128 + signal.load(Ordering::SeqCst) as i32);
    }
}

/// The ignored signals, from `/proc/self/status`: bit 0 is signal 1.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn interrupted(signal: i32, kept: &str) -> Error {
    let name = match signal {
        SIGINT => "SIGINT",
        SIGTERM => "SIGTERM",
        SIGQUIT => "SIGQUIT",
        _ => "SIGHUP",
    };
    Error::new(Kind::Interrupted(signal), format!("stopped by {name}; no container is left running; {kept}"))
}
