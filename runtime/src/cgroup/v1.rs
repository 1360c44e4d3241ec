//! Files of cgroup version 1.

use super::{Controller, Counters, PERIOD, read_keyed, read_number, write};
use crate::spec::{Limits, millicpus, round_to_pages};
use invarlock_error::Result;
use std::path::Path;

/// Sets one limit. Returns the requested value, as the kernel rounds it, and the value that was read back.
pub(super) fn limit(dir: &Path, controller: Controller, limits: &Limits) -> Result<(u64, u64)> {
    match controller {
        Controller::Memory => {
            let (file, swap) = (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
            let requested = round_to_pages(limits.memory_bytes);
            write(&file, &requested.to_string())?;
            if swap.exists() {
                write(&swap, &requested.to_string())?;
            }
            Ok((requested, read_number(&file)?))
        }
        Controller::Pids => {
            let file = dir.join("pids.max");
            write(&file, &limits.pids.to_string())?;
            Ok((limits.pids, read_number(&file)?))
        }
        Controller::Cpu => {
            let requested = millicpus(limits);
            write(&dir.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
            write(&dir.join("cpu.cfs_quota_us"), &(requested * PERIOD / 1000).to_string())?;
            let quota = read_number(&dir.join("cpu.cfs_quota_us"))?;
            Ok((requested, quota.saturating_mul(1000) / read_number(&dir.join("cpu.cfs_period_us"))?.max(1)))
        }
    }
}

/// Peak memory and OOM kills of the memory controller.
pub(super) fn counters(dir: &Path) -> Counters {
    Counters {
        peak_memory: read_number(&dir.join("memory.max_usage_in_bytes")).ok(),
        oom_kills: read_keyed(&dir.join("memory.oom_control"), "oom_kill"),
        forks_refused: None,
    }
}
