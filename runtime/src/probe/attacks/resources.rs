//! Limits, and the end.

use super::super::sys;
use super::{Answer, Attack, Expect, attack};
use crate::observations::LimitMechanism as By;
use crate::outcome::Status;
use crate::spec::LimitName;

const LIMITS_ROW: &str = "limits";
const LIFE_ROW: &str = "life";

/// Row "limits".
pub(super) const LIMITS: &[Attack] = &[
    attack(
        LIMITS_ROW,
        "memory",
        "use a quarter more memory than there is",
        Expect::Outside("killed or ENOMEM", |facts, answer| match (facts.ends.get("memory")?, answer) {
            (Ok(Status::MemoryLimit | Status::Signaled(libc::SIGKILL)), None) => {
                Some(("killed".into(), true))
            }
            (Ok(_), Some(Answer::Refused(libc::ENOMEM))) => Some(("ENOMEM".into(), true)),
            (Ok(Status::Exited(2)), None) => None,
            (Ok(status), answer) => Some((answer.map_or_else(|| status.to_string(), Answer::shown), false)),
            (Err(e), _) => Some((e.to_string(), false)),
        }),
        None,
    ),
    attack(
        LIMITS_ROW,
        "processes-limit",
        "make more processes than allowed",
        Expect::AtMost(|facts| facts.limits.pids),
        Some(|| {
            let mut made = Vec::new();
            while made.len() < 64 {
                match sys::fork() {
                    Ok(0) => {
                        std::thread::sleep(std::time::Duration::from_secs(20));
                        crate::sys::exit_now(0)
                    }
                    Ok(pid) => made.push(pid),
                    Err(_) => break,
                }
            }
            for pid in &made {
                sys::end(*pid);
            }
            Answer::Said(made.len().to_string())
        }),
    ),
    attack(
        LIMITS_ROW,
        "processors",
        "use more processor time than allowed",
        Expect::Outside("a third of one at most, or one processor", |facts, answer| {
            // Where no cgroup shares it out, the limit is rounded up to whole processors.
            let held_by = facts
                .observations
                .limits
                .value
                .iter()
                .find(|row| row.name == LimitName::Cpu)
                .map(|row| row.mechanism);
            let Answer::Said(text) = answer? else { return None };
            let (share, processors) = text.split_once(' ')?;
            match held_by? {
                By::Affinity => Some((format!("{processors} processors"), processors == "1")),
                _ => Some((format!("{share} % of one"), share.parse::<u64>().is_ok_and(|share| share <= 33))),
            }
        }),
        None,
    ),
    attack(
        LIMITS_ROW,
        "open-files",
        "open more files than allowed",
        Expect::AtMost(|facts| facts.limits.open_files),
        Some(|| {
            let opened: Vec<_> = (0..200).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
            Answer::Said(opened.len().to_string())
        }),
    ),
    attack(
        LIMITS_ROW,
        "core",
        "leave a core dump",
        Expect::Says("0 0"),
        Some(|| {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
            let shown = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |v| v.to_string());
            Answer::Said(format!("{} {}", shown(limit.current), shown(limit.maximum)))
        }),
    ),
    attack(
        LIMITS_ROW,
        "time",
        "go on for longer than allowed, deaf to SIGTERM",
        Expect::Outside("ended by the wall-time limit", |facts, _| match facts.ends.get("time")? {
            Ok(Status::TimedOut) => Some(("ended by the wall-time limit".into(), true)),
            Ok(Status::Exited(2)) => None,
            Ok(status) => Some((status.to_string(), false)),
            Err(e) => Some((e.to_string(), false)),
        }),
        None,
    ),
];

/// Row "life".
pub(super) const LIFE: &[Attack] = &[attack(
    LIFE_ROW,
    "outlive",
    "outlive the run: a grandchild in a session of its own",
    Expect::Outside("gone", |facts, _| {
        let left = &facts.changes.processes;
        match facts.ends.get("time")? {
            Ok(Status::Exited(2)) => None,
            _ => Some((if left.is_empty() { "gone".into() } else { format!("{left:?}") }, left.is_empty())),
        }
    }),
    None,
)];
