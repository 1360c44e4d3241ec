//! Files of cgroup version 2.

use super::{CPU_PERIOD, Controller, Counters, read_keyed, read_number, write};
use crate::procfs;
use crate::spec::{Limits, millicpus, round_to_pages};
use invarlock_error::{Context as _, Error, Result};
use std::fs;
use std::path::Path;

/// Creates a cgroup and checks that it has the controllers.
pub(super) fn create(dir: &Path, controllers: &[Controller]) -> std::result::Result<(), String> {
    fs::create_dir(dir).map_err(|e| format!("creating {}: {e}", dir.display()))?;
    let text = procfs::read(dir.join("cgroup.controllers")).unwrap_or_default();
    let has: Vec<&str> = text.split_whitespace().collect();
    if let Some(absent) = controllers.iter().find(|c| !has.contains(&c.name())) {
        // Best effort: the directory is empty and new; if it stays, a later sweep finds it.
        drop(fs::remove_dir(dir));
        return Err(format!("the {} controller is not delegated to {}", absent.name(), dir.display()));
    }
    Ok(())
}

/// Sets one limit. Returns the requested value, as the kernel rounds it, and the value that was read back.
pub(super) fn limit(dir: &Path, controller: Controller, limits: &Limits) -> Result<(u64, u64)> {
    match controller {
        Controller::Memory => {
            let (file, swap) = (dir.join("memory.max"), dir.join("memory.swap.max"));
            let requested = round_to_pages(limits.memory_bytes);
            write(&file, &requested.to_string())?;
            if swap.exists() {
                write(&swap, "0")?;
            }
            Ok((requested, read_number(&file)?))
        }
        Controller::Pids => {
            let file = dir.join("pids.max");
            write(&file, &limits.pids.to_string())?;
            Ok((limits.pids, read_number(&file)?))
        }
        Controller::Cpu => {
            let (file, requested) = (dir.join("cpu.max"), millicpus(limits));
            write(&file, &format!("{} {CPU_PERIOD}", requested * CPU_PERIOD / 1000))?;
            let text = procfs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            Ok((
                requested,
                parse_cpu_max(&text)
                    .ok_or_else(|| Error::system(format!("{} contains {text:?}", file.display())))?,
            ))
        }
    }
}

/// Parses `quota period` into thousandths of a processor.
fn parse_cpu_max(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    if quota == "max" {
        return Some(u64::MAX);
    }
    quota.parse::<u64>().ok()?.checked_mul(1000)?.checked_div(period.parse().ok()?)
}

/// Peak memory and OOM kills of the memory controller.
pub(super) fn counters(dir: &Path) -> Counters {
    Counters {
        peak_memory: read_number(&dir.join("memory.peak")).ok(),
        oom_kills: read_keyed(&dir.join("memory.events"), "oom_kill"),
        forks_refused: None,
    }
}

#[cfg(test)]
mod tests {
    use super::parse_cpu_max;

    #[test]
    fn parses_cpu_max() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1500));
        assert_eq!(parse_cpu_max("max 100000\n"), Some(u64::MAX));
        assert_eq!(parse_cpu_max("1 0\n"), None);
    }
}
