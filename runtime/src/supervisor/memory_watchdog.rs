//! The memory watchdog, used if no cgroup limits the memory: it periodically adds up the private memory of the run's processes.
//!
//! Counted are anonymous and shared memory, swapped memory, page tables, the files in `/out` and `/tmp`, and for each open socket the most
//! that its buffer can hold. Mapped files of the host (weights) are not counted, because the kernel can reclaim their pages. Memory that no process maps and
//! no directory lists (`memfd_create`, the content of pipes) is not found.

use crate::procfs;
use std::fs;
use std::time::{Duration, Instant};

/// Shortest and longest pause between two checks, whatever the workload does.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// A check may take one part in this many of the time, within the longest pause. With many processes there are fewer checks.
const SHARE: u32 = 50;
/// How long the exact sum may take. A process that is not reached in this time counts with its shared pages.
const EXACT_SUM: Duration = Duration::from_millis(500);
/// The kernel's default of `net.core.wmem_max`.
const DEFAULT_BUFFER: u64 = 212_992;
/// The line of page tables in `/proc/<pid>/status`. A mapping that only reads needs them too, and no other line counts them.
const PAGE_TABLES: &str = "VmPTE:";
/// Most processes that are checked; far more than a pids limit allows.
const MAX_PROCESSES: usize = 100_000;

/// The limit, the highest sum so far, and the time of the next check.
pub(super) struct MemoryWatchdog {
    limit: u64,
    /// The most bytes that a socket of the run can hold; none if the run has no network namespace of its own, in which all sockets are its own.
    bytes_per_socket: Option<u64>,
    pub(super) peak: u64,
    pub(super) next: Instant,
}

impl MemoryWatchdog {
    /// `own_network`: whether the run has its own network namespace, so that all sockets of the namespace are the run's.
    pub(super) fn new(limit: u64, own_network: bool, now: Instant) -> Self {
        MemoryWatchdog {
            limit,
            bytes_per_socket: own_network.then(bytes_per_socket),
            peak: 0,
            next: now + PAUSE.0,
        }
    }

    /// Whether it is time for the next check.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// Adds up the memory, with `files` bytes in `/out` and `/tmp`; true if the sum exceeds the limit.
    pub(super) fn check(&mut self, files: u64) -> bool {
        let start = Instant::now();
        let processes = descendants();
        let others = files + self.bytes_per_socket.map_or(0, |bytes| bytes * sockets(&processes));
        let mut sum = others + processes.iter().filter_map(|pid| private(*pid)).sum::<u64>();
        if sum > self.limit {
            // Pages shared by clones of a process were counted for each of them. The exact sum takes longer: the kernel walks all mappings.
            let latest = Instant::now() + EXACT_SUM;
            let exact = |pid: &u32| match Instant::now() < latest {
                true => fair_share(*pid).or_else(|| private(*pid)),
                false => private(*pid),
            };
            sum = others + processes.iter().filter_map(exact).sum::<u64>();
        }
        self.peak = self.peak.max(sum);
        let now = Instant::now();
        self.next = now + ((now - start) * SHARE).clamp(PAUSE.0, PAUSE.1);
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

/// Bytes of private memory and page tables; none if the process is gone.
fn private(pid: u32) -> Option<u64> {
    let text = procfs::read(format!("/proc/{pid}/status")).ok()?;
    Some(kib(&text, &["RssAnon:", "RssShmem:", "VmSwap:", PAGE_TABLES]) * 1024)
}

/// The same, with shared pages divided among the processes that share them; none if the process may not be inspected. Each process has its
/// own page tables.
fn fair_share(pid: u32) -> Option<u64> {
    let pages = procfs::read(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let tables = procfs::read(format!("/proc/{pid}/status")).ok()?;
    Some((kib(&pages, &["Pss_Anon:", "Pss_Shmem:", "SwapPss:"]) + kib(&tables, &[PAGE_TABLES])) * 1024)
}

/// The kernel doubles the size that a program requests for a buffer, up to twice `net.core.wmem_max`.
fn bytes_per_socket() -> u64 {
    let text = procfs::read("/proc/sys/net/core/wmem_max").ok();
    2 * text.and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_BUFFER)
}

/// The open sockets of the run: those of the network namespace of its processes.
fn sockets(processes: &[u32]) -> u64 {
    let used = |pid: &u32| sockets_in_use(&procfs::read(format!("/proc/{pid}/net/sockstat")).ok()?);
    processes.iter().find_map(used).unwrap_or(0)
}

fn sockets_in_use(sockstat: &str) -> Option<u64> {
    sockstat.lines().find_map(|line| line.strip_prefix("sockets: used ")?.trim().parse().ok())
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
    use super::{PAGE_TABLES, kib, private, sockets_in_use};

    #[test]
    fn reads_the_number_of_sockets() {
        assert_eq!(sockets_in_use("sockets: used 12\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\n"), Some(12));
        assert_eq!(sockets_in_use(""), None);
    }

    #[test]
    fn counts_page_tables_of_this_process() {
        let status = std::fs::read_to_string("/proc/self/status").expect("status");
        let tables = kib(&status, &[PAGE_TABLES]) * 1024;
        assert!(tables > 0 && private(std::process::id()).is_some_and(|bytes| bytes > tables), "{status}");
    }

    #[test]
    fn adds_up_lines() {
        let text =
            "VmRSS:\t  999 kB\nRssAnon:\t     96 kB\nRssFile:\t 7 kB\nRssShmem:\t       4 kB\nVmSwap: x kB\n";
        assert_eq!(kib(text, &["RssAnon:", "RssShmem:", "VmSwap:", PAGE_TABLES]), 100);
    }
}
