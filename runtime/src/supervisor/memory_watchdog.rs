//! The memory watchdog, used if no cgroup limits the memory: it periodically adds up the private memory of the run's processes.
//!
//! Counted are anonymous and shared memory, swapped memory, and the files in `/out` and `/tmp`. Mapped files of the host (weights) are not
//! counted, because the kernel can reclaim their pages. Memory that no process maps and no directory lists (`memfd_create`) is not found.

use crate::procfs;
use std::fs;
use std::time::{Duration, Instant};

/// Shortest pause between two checks.
const PAUSE: Duration = Duration::from_millis(100);
/// A check may take one part in this many of the time. With many processes there are fewer checks.
const SHARE: u32 = 50;
/// Most processes that are checked; far more than a pids limit allows.
const MAX_PROCESSES: usize = 100_000;

/// The limit, the highest sum so far, and the time of the next check.
pub(super) struct MemoryWatchdog {
    limit: u64,
    pub(super) peak: u64,
    pub(super) next: Instant,
}

impl MemoryWatchdog {
    pub(super) fn new(limit: u64, now: Instant) -> Self {
        MemoryWatchdog { limit, peak: 0, next: now + PAUSE }
    }

    /// Whether it is time for the next check.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// Adds up the memory, with `files` bytes in `/out` and `/tmp`; true if the sum exceeds the limit.
    pub(super) fn check(&mut self, files: u64) -> bool {
        let start = Instant::now();
        let processes = descendants();
        let mut sum = files + processes.iter().filter_map(|pid| private(*pid)).sum::<u64>();
        if sum > self.limit {
            // Pages shared by clones of a process were counted for each of them. The exact sum takes longer.
            sum = files
                + processes.iter().filter_map(|pid| fair_share(*pid).or_else(|| private(*pid))).sum::<u64>();
        }
        self.peak = self.peak.max(sum);
        let now = Instant::now();
        self.next = now + PAUSE.max((now - start) * SHARE);
        sum > self.limit
    }
}

/// All descendants of this process. All belong to the run: its orphans become children of init or of this process.
fn descendants() -> Vec<u32> {
    let mut found = children("self");
    let mut next = 0;
    while let Some(pid) = found.get(next).copied().filter(|_| found.len() < MAX_PROCESSES) {
        found.extend(children(&pid.to_string()));
        next += 1;
    }
    found
}

fn children(process: &str) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| procfs::read(task.path().join("children")).ok());
    lists.flat_map(|l| l.split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Bytes of private memory; none if the process is gone.
fn private(pid: u32) -> Option<u64> {
    let text = procfs::read(format!("/proc/{pid}/status")).ok()?;
    Some(kib(&text, &["RssAnon:", "RssShmem:", "VmSwap:"]) * 1024)
}

/// The same, with shared pages divided among the processes that share them; none if the process may not be inspected.
fn fair_share(pid: u32) -> Option<u64> {
    let text = procfs::read(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(kib(&text, &["Pss_Anon:", "Pss_Shmem:", "SwapPss:"]) * 1024)
}

fn kib(text: &str, keys: &[&str]) -> u64 {
    let value = |line: &str| {
        let rest = keys.iter().find_map(|key| line.strip_prefix(key))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    text.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::kib;

    #[test]
    fn adds_up_lines() {
        let text =
            "VmRSS:\t  999 kB\nRssAnon:\t     96 kB\nRssFile:\t 7 kB\nRssShmem:\t       4 kB\nVmSwap: x kB\n";
        assert_eq!(kib(text, &["RssAnon:", "RssShmem:", "VmSwap:"]), 100);
    }
}
