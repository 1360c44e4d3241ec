//! Attacks on the controls "limits" and "life".

use super::{Attack, Expect, attack};
use crate::answer::Answer;
use crate::findings::Findings;
use crate::sys;
use invarlock_error::Result;
use invarlock_runtime::{LimitMechanism, LimitName, Status};
use std::time::Duration;

const LIMITS_CONTROL: &str = "limits";
const LIFE_CONTROL: &str = "life";

/// Control "limits".
pub(super) const LIMITS: &[Attack] = &[
    attack(
        LIMITS_CONTROL,
        "memory",
        "use a quarter more memory than allowed",
        Expect::Outside("killed or ENOMEM", check_memory),
        None,
    ),
    attack(
        LIMITS_CONTROL,
        "reserve",
        "map more than four times the memory limit, in MiB",
        Expect::AtMost(|findings| (4 * findings.limits.memory_bytes) >> 20),
        Some(|| {
            let (length, protection) = (16 << 20, libc::PROT_READ | libc::PROT_WRITE);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = || {
                let args = [0, length, protection.into(), flags.into(), -1, 0];
                sys::call(libc::SYS_mmap, &mut args.map(sys::Arg::Number)).is_ok()
            };
            let mapped = (0..64).take_while(|_| map()).count();
            Answer::Text((mapped * 16).to_string())
        }),
    ),
    attack(
        LIMITS_CONTROL,
        "processes-limit",
        "create more processes than allowed",
        Expect::AtMost(|findings| findings.limits.pids),
        Some(create_processes),
    ),
    attack(
        LIMITS_CONTROL,
        "processors",
        "use more processor time than allowed",
        Expect::Outside("33 % of one or less, or one processor", check_processors),
        None,
    ),
    attack(
        LIMITS_CONTROL,
        "open-files",
        "open more files than allowed",
        Expect::AtMost(|findings| findings.limits.open_files),
        Some(|| {
            let opened: Vec<_> = (0..200).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
            Answer::Text(opened.len().to_string())
        }),
    ),
    attack(
        LIMITS_CONTROL,
        "core",
        "leave a core dump",
        Expect::Text("1 1"),
        Some(|| {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
            let text = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |v| v.to_string());
            Answer::Text(format!("{} {}", text(limit.current), text(limit.maximum)))
        }),
    ),
    attack(
        LIMITS_CONTROL,
        "time",
        "run for longer than allowed and ignore SIGTERM",
        Expect::Outside("ended by the wall-time limit", |findings, _| {
            let end = end_of("time", findings)?;
            match end {
                Ok(Status::TimedOut) => Some(("ended by the wall-time limit".into(), true)),
                Ok(status) => Some((status.to_string(), false)),
                Err(error) => Some((error.to_string(), false)),
            }
        }),
        None,
    ),
];

/// Control "life".
pub(super) const LIFE: &[Attack] = &[attack(
    LIFE_CONTROL,
    "outlive",
    "outlive the run: a grandchild in a session of its own",
    Expect::Outside("gone", |findings, _| {
        end_of("time", findings)?;
        let left = &findings.host_changes.processes;
        Some((if left.is_empty() { "gone".into() } else { format!("{left:?}") }, left.is_empty()))
    }),
    None,
)];

/// How a separate run ended. None if the attacker refused to run (exit code 2).
fn end_of<'a>(run: &str, findings: &'a Findings) -> Option<&'a Result<Status>> {
    findings.separate_runs.get(run).filter(|end| !matches!(end, Ok(Status::Exited(2))))
}

fn check_memory(findings: &Findings, answer: Option<&Answer>) -> Option<(String, bool)> {
    match (findings.separate_runs.get("memory")?, answer) {
        (Ok(Status::MemoryLimit | Status::Signaled(libc::SIGKILL)), None) => Some(("killed".into(), true)),
        (Ok(_), Some(Answer::Failed(libc::ENOMEM))) => Some(("ENOMEM".into(), true)),
        (Ok(Status::Exited(2)), None) => None,
        (Ok(status), answer) => Some((answer.map_or_else(|| status.to_string(), Answer::describe), false)),
        (Err(error), _) => Some((error.to_string(), false)),
    }
}

fn check_processors(findings: &Findings, answer: Option<&Answer>) -> Option<(String, bool)> {
    let limits = &findings.observations.limits.value;
    let enforced_by = limits.iter().find(|limit| limit.name == LimitName::Cpu)?.mechanism;
    let Answer::Text(text) = answer? else { return None };
    let (share, processors) = text.split_once(' ')?;
    match enforced_by {
        // Without a cgroup the limit is rounded up to whole processors.
        LimitMechanism::Affinity => Some((format!("{processors} processors"), processors == "1")),
        _ => Some((format!("{share} % of one"), share.parse::<u64>().is_ok_and(|share| share <= 33))),
    }
}

/// The number of processes that exist at the same time.
fn create_processes() -> Answer {
    let mut children = Vec::new();
    while children.len() < 64 {
        match sys::fork() {
            Ok(0) => {
                std::thread::sleep(Duration::from_secs(20));
                sys::exit_now(0)
            }
            Ok(pid) => children.push(pid),
            Err(_) => break,
        }
    }
    for pid in &children {
        sys::kill_and_wait(*pid);
    }
    Answer::Text(children.len().to_string())
}
