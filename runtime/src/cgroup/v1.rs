//! Files of cgroup version 1.

use super::{CPU_PERIOD, Controller, Counters, read_keyed, read_number, write};
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
            // The other limits do not count buffers of TCP and UDP sockets, which a user's own profile may allow.
            let sockets = dir.join("memory.kmem.tcp.limit_in_bytes");
            let mut effective = read_number(&file)?;
            if sockets.exists() {
                write(&sockets, &requested.to_string())?;
                effective = effective.max(read_number(&sockets)?);
            }
            Ok((requested, effective))
        }
        Controller::Pids => {
            let file = dir.join("pids.max");
            write(&file, &limits.pids.to_string())?;
            Ok((limits.pids, read_number(&file)?))
        }
        Controller::Cpu => {
            let requested = millicpus(limits);
            write(&dir.join("cpu.cfs_period_us"), &CPU_PERIOD.to_string())?;
            write(&dir.join("cpu.cfs_quota_us"), &(requested * CPU_PERIOD / 1000).to_string())?;
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

#[cfg(test)]
mod tests {
    use super::limit;
    use crate::cgroup::Controller;
    use crate::spec::Limits;

    #[test]
    fn memory_limit_also_limits_the_buffers_of_sockets() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str| dir.path().join(name);
        std::fs::write(file("memory.kmem.tcp.limit_in_bytes"), "9223372036854771712\n").expect("a file");
        let limits = Limits { memory_bytes: 64 << 20, ..Limits::for_machine() };
        assert_eq!(limit(dir.path(), Controller::Memory, &limits).expect("set"), (64 << 20, 64 << 20));
        for name in ["memory.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"] {
            assert_eq!(std::fs::read_to_string(file(name)).expect(name), "67108864", "{name}");
        }
    }
}
