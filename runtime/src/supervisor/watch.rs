//! The watchdog over memory, where no cgroup holds it: as often as it may, it adds up what the processes of the run have for themselves.
//!
//! What counts is what nobody else could use: anonymous and shared memory, what is swapped out, and the files in `/out` and `/tmp`. Mapped
//! files of the host (weights) do not count; the kernel takes their pages back when it wants to. Memory that no process maps and no
//! directory shows (`memfd_create`) is not seen.

use super::Run;
use crate::kernel;
use crate::limits::Room;
use invarlock_error::Result;
use std::fs;
use std::time::{Duration, Instant};

/// Shortest pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// A look takes at most this part of the time: where there are many processes, there are fewer looks.
const SHARE: u32 = 50;
/// More processes than the pids limit allows are not looked for.
const MOST: usize = 100_000;

/// Whether `/proc` hides processes from this user: then those that may not be inspected, and what is below them, would not be seen.
pub(crate) fn is_blind() -> bool {
    let mounts = kernel::read("/proc/self/mountinfo").unwrap_or_default();
    !rustix::process::geteuid().is_root() && hides(&mounts)
}

/// The last mount on `/proc` is the one that is looked at.
fn hides(mountinfo: &str) -> bool {
    let proc = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = proc.and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    options.split(',').any(|o| o.strip_prefix("hidepid=").is_some_and(|how| how != "0" && how != "off"))
}

/// What was seen so far.
pub(super) struct Memory {
    limit: u64,
    pub(super) peak: u64,
    pub(super) next: Instant,
}

impl Memory {
    pub(super) fn new(limit: u64, now: Instant) -> Self {
        Memory { limit, peak: 0, next: now + PAUSE }
    }
}

impl Run<'_> {
    /// Looks, if it is time, and says whether the run has more than it may.
    pub(super) fn is_over_memory(&mut self) -> Result<bool> {
        let start = Instant::now();
        let Some(watch) = self.watch.as_mut().filter(|watch| start >= watch.next) else { return Ok(false) };
        let mut files = 0;
        if !self.host {
            for handle in [&self.out, &self.tmp].into_iter().flatten() {
                files += Room::of(handle)?.used;
            }
        }
        let processes = descendants();
        let mut sum = files + processes.iter().filter_map(|pid| own(*pid)).sum::<u64>();
        if sum > watch.limit {
            // Pages that copies of a process still share were counted for each of them; the exact figure is dear.
            sum = files
                + processes.iter().filter_map(|pid| fair_share(*pid).or_else(|| own(*pid))).sum::<u64>();
        }
        watch.peak = watch.peak.max(sum);
        let now = Instant::now();
        watch.next = now + PAUSE.max((now - start) * SHARE);
        Ok(sum > watch.limit)
    }
}

/// Every process below this one: all are the run's, for its orphans become init's children or this process's.
fn descendants() -> Vec<u32> {
    let mut found = children("self");
    let mut next = 0;
    while let Some(pid) = found.get(next).copied().filter(|_| found.len() < MOST) {
        found.extend(children(&pid.to_string()));
        next += 1;
    }
    found
}

fn children(process: &str) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| kernel::read(task.path().join("children")).ok());
    lists.flat_map(|l| l.split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Bytes that the process has; none where it is gone.
fn own(pid: u32) -> Option<u64> {
    let text = kernel::read(format!("/proc/{pid}/status")).ok()?;
    Some(kib(&text, &["RssAnon:", "RssShmem:", "VmSwap:"]) * 1024)
}

/// The same, with shared pages divided among those who share them; none where the process does not let itself be looked at.
fn fair_share(pid: u32) -> Option<u64> {
    let text = kernel::read(format!("/proc/{pid}/smaps_rollup")).ok()?;
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
    use super::{hides, kib};

    #[test]
    fn a_proc_that_hides_is_known() {
        let line = |options: &str| {
            format!("22 1 0:5 / /proc rw,nosuid - proc proc {options}\n23 1 0:6 / /tmp rw - tmpfs t rw\n")
        };
        assert!(!hides(&line("rw")) && !hides(&line("rw,hidepid=off")) && !hides(""));
        assert!(hides(&line("rw,gid=4,hidepid=invisible")) && hides(&line("rw,hidepid=2")));
        assert!(!hides(&(line("rw,hidepid=2") + &line("rw"))), "what is mounted over it is what is seen");
    }

    #[test]
    fn lines_are_added_up() {
        let text =
            "VmRSS:\t  999 kB\nRssAnon:\t     96 kB\nRssFile:\t 7 kB\nRssShmem:\t       4 kB\nVmSwap: x kB\n";
        assert_eq!(kib(text, &["RssAnon:", "RssShmem:", "VmSwap:"]), 100);
    }
}
