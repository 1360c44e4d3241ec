//! The steps of a run and the time at which each was reached. The supervisor shares the memory of the times with its clones, up to the
//! workload's first instruction.

use super::kill_at;
use crate::sys::{self, SharedWords};
use invarlock_error::{Context as _, Result};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The steps of every run, each named after the process that reaches it.
pub const EVERY_RUN: [&str; 22] = [
    "launcher: supervisor started",
    "launcher: run handed over",
    "launcher: outcome received",
    "supervisor: started",
    "supervisor: lock file made",
    "supervisor: lock file written",
    "supervisor: lock taken",
    "supervisor: first cgroup tried",
    "supervisor: cgroup made",
    "supervisor: request received",
    "supervisor: limits set",
    "supervisor: handles prepared",
    "supervisor: workload waits",
    "supervisor: observed",
    "supervisor: workload started",
    "supervisor: workload ended",
    "supervisor: all dead",
    "supervisor: output collected",
    "supervisor: cgroup removed",
    "supervisor: lock released",
    "init: workload forked",
    "init: workload ended",
];

/// The further steps of a container.
pub const CONTAINER: [&str; 15] = [
    "supervisor: builder cloned",
    "supervisor: output handle received",
    "builder: started",
    "builder: cgroup entered",
    "builder: namespaces made",
    "builder: tree prepared",
    "builder: told what to build",
    "builder: mounts made",
    "builder: host left",
    "builder: root assembled",
    "builder: output handed over",
    "builder: configuration made",
    "init: file system there",
    "init: boundary finished",
    "init: ready said",
];

/// The further step of a container that root starts from an image.
pub const BY_ROOT: [&str; 1] = ["supervisor: namespace of mounts made"];

/// The further steps of host execution.
pub const HOST: [&str; 4] = [
    "supervisor: program's parent forked",
    "init: host started",
    "init: host cgroup entered",
    "init: host ready said",
];

/// The workload's last step before it executes the program.
pub const WORKLOAD: [&str; 1] = ["workload: given up everything"];

/// The steps of the launcher around a run, which writes its files atomically.
pub const FILES: [&str; 9] = [
    "files: run directory begun",
    "files: windows journaled",
    "files: run directory filled",
    "files: run directory named",
    "files: evidence staged",
    "files: old manifest removed",
    "files: report named",
    "files: manifest named",
    "files: evidence synced",
];

const STEPS: usize = EVERY_RUN.len() + CONTAINER.len() + BY_ROOT.len() + HOST.len() + WORKLOAD.len();

/// The steps whose time is recorded.
fn timed() -> impl Iterator<Item = &'static str> {
    EVERY_RUN.into_iter().chain(CONTAINER).chain(BY_ROOT).chain(HOST).chain(WORKLOAD)
}

/// When this process reached its steps, nanoseconds of the monotonic clock; 0 if it did not.
static OWN: [AtomicU64; STEPS] = [const { AtomicU64::new(0) }; STEPS];
/// The same for the supervisor and its clones.
static SHARED: OnceLock<SharedWords> = OnceLock::new();
/// When the launcher's `main` began.
static START: AtomicU64 = AtomicU64::new(0);

fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn times() -> &'static [AtomicU64] {
    SHARED.get().map_or(&OWN, |shared| shared.words())
}

/// Records the start of the launcher.
pub(crate) fn start() {
    START.store(now(), Ordering::Relaxed);
}

/// From here on this process and its clones share the times.
pub(crate) fn share_timeline() -> Result<()> {
    let words = sys::shared_words(STEPS).context("sharing memory")?;
    _ = SHARED.set(words);
    Ok(())
}

/// The steps that were reached, with their times.
pub(crate) fn timeline() -> Vec<(String, u64)> {
    let reached = |(name, time): (&str, &AtomicU64)| match time.load(Ordering::Relaxed) {
        0 => None,
        time => Some((name.to_owned(), time)),
    };
    timed().zip(times()).filter_map(reached).collect()
}

/// Sorts times and converts them to microseconds since the launcher began.
pub(crate) fn since_start(mut timings: Vec<(String, u64)>) -> Vec<(String, u64)> {
    let start = START.load(Ordering::Relaxed);
    timings.sort_by_key(|(_, time)| *time);
    timings.into_iter().map(|(name, time)| (name, time.saturating_sub(start) / 1000)).collect()
}

/// Records that a step was reached. With the feature `fault-injection`, a test can kill the process here.
pub fn step(name: &'static str) {
    if let Some((_, time)) = timed().zip(times()).find(|(step, _)| *step == name) {
        time.store(now(), Ordering::Relaxed);
    } else {
        debug_assert!(FILES.contains(&name), "step {name:?} is in no list, so no test covers it");
    }
    kill_at(name);
}
