//! Files of cgroup version 2.

use super::{Controller, Counted, PERIOD, millicpus, read_keyed, read_number, round_to_pages, write};
use crate::kernel;
use crate::spec::Limits;
use invarlock_error::{Context as _, Error, Result};
use std::fs;
use std::path::Path;

/// Makes a group and checks that it has the controllers.
pub(super) fn create(dir: &Path, controllers: &[Controller]) -> std::result::Result<(), String> {
    fs::create_dir(dir).map_err(|e| format!("making {}: {e}", dir.display()))?;
    let text = kernel::read(dir.join("cgroup.controllers")).unwrap_or_default();
    let has: Vec<&str> = text.split_whitespace().collect();
    if let Some(absent) = controllers.iter().find(|c| !has.contains(&c.name())) {
        // Best effort: the directory is empty and new; where it stays, the sweep finds it.
        drop(fs::remove_dir(dir));
        return Err(format!("the {} controller is not delegated to {}", absent.name(), dir.display()));
    }
    Ok(())
}

/// Sets one limit; gives what was asked (in the kernel's rounding) and what is read back.
pub(super) fn limit(dir: &Path, controller: Controller, limits: &Limits) -> Result<(u64, u64)> {
    match controller {
        Controller::Memory => {
            let (file, swap) = (dir.join("memory.max"), dir.join("memory.swap.max"));
            let asked = round_to_pages(limits.memory_bytes);
            write(&file, &asked.to_string())?;
            if swap.exists() {
                write(&swap, "0")?;
            }
            Ok((asked, read_number(&file)?))
        }
        Controller::Pids => {
            let file = dir.join("pids.max");
            write(&file, &limits.pids.to_string())?;
            Ok((limits.pids, read_number(&file)?))
        }
        Controller::Cpu => {
            let (file, asked) = (dir.join("cpu.max"), millicpus(limits));
            write(&file, &format!("{} {PERIOD}", asked * PERIOD / 1000))?;
            let text = kernel::read(&file).with_context(|| format!("reading {}", file.display()))?;
            Ok((
                asked,
                parse_cpu_max(&text)
                    .ok_or_else(|| Error::system(format!("{} says {text:?}", file.display())))?,
            ))
        }
    }
}

/// `quota period`, in thousandths of a processor.
fn parse_cpu_max(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    if quota == "max" {
        return Some(u64::MAX);
    }
    quota.parse::<u64>().ok()?.checked_mul(1000)?.checked_div(period.parse().ok()?)
}

/// Peak and OOM kills of the memory controller.
pub(super) fn counted(dir: &Path) -> Counted {
    Counted {
        peak_memory: read_number(&dir.join("memory.peak")).ok(),
        oom_kills: read_keyed(&dir.join("memory.events"), "oom_kill"),
        forks_refused: None,
    }
}

#[cfg(test)]
mod tests {
    use super::parse_cpu_max;

    #[test]
    fn cpu_max_is_read() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1500));
        assert_eq!(parse_cpu_max("max 100000\n"), Some(u64::MAX));
        assert_eq!(parse_cpu_max("1 0\n"), None);
    }
}
