//! The resource limits of the workload: all sixteen are set, so that none depends on the caller, except that a process cannot raise a hard
//! limit.

use crate::hooks;
use crate::rlimit_kind::LowerRlimit;
pub(crate) use crate::rlimit_kind::RlimitKind;
use crate::spec::{LimitName, Limits, round_to_pages};
use invarlock_error::{Error, Result};
use oci_spec::runtime::PosixRlimitType;
use rustix::process::Resource;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rlimit {
    pub(crate) kind: RlimitKind,
    pub(crate) value: RlimitValue,
}

/// The value of a resource limit. None means unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RlimitValue {
    /// The limit that the kernel applies.
    pub soft: Option<u64>,
    /// The largest value that the process can give its soft limit. A run's limits have the same, so that the workload cannot raise one.
    pub hard: Option<u64>,
}

/// Each limit: its name in observations, and its label in `/proc/<pid>/limits`.
const TABLE: [(RlimitKind, Resource, &str, &str); 16] = {
    use RlimitKind as K;
    [
        (K::Cpu, Resource::Cpu, "cpu", "Max cpu time"),
        (K::Fsize, Resource::Fsize, "fsize", "Max file size"),
        (K::Data, Resource::Data, "data", "Max data size"),
        (K::Stack, Resource::Stack, "stack", "Max stack size"),
        (K::Core, Resource::Core, "core", "Max core file size"),
        (K::Rss, Resource::Rss, "rss", "Max resident set"),
        (K::Nproc, Resource::Nproc, "nproc", "Max processes"),
        (K::Nofile, Resource::Nofile, "nofile", "Max open files"),
        (K::Memlock, Resource::Memlock, "memlock", "Max locked memory"),
        (K::As, Resource::As, "as", "Max address space"),
        (K::Locks, Resource::Locks, "locks", "Max file locks"),
        (K::Sigpending, Resource::Sigpending, "sigpending", "Max pending signals"),
        (K::Msgqueue, Resource::Msgqueue, "msgqueue", "Max msgqueue size"),
        (K::Nice, Resource::Nice, "nice", "Max nice priority"),
        (K::Rtprio, Resource::Rtprio, "rtprio", "Max realtime priority"),
        (K::Rttime, Resource::Rttime, "rttime", "Max realtime timeout"),
    ]
};

/// Bytes of a core dump: see [`crate::core_dumps`].
const CORE: u64 = 1;
/// Bytes of a stack: the kernel's default.
const STACK: u64 = 8 << 20;
/// Bytes that a process can keep in memory: the kernel's default since Linux 5.16.
const MEMLOCK: u64 = 8 << 20;
/// Pending signals and timers. The kernel counts them for each user of the host, so a user's run takes them from the user's own programs.
const SIGPENDING: u64 = 1024;

/// With a memory cgroup, a process can map this many times the memory limit. Programs map more than they use, and the cgroup reports
/// what they use. Without a bound, a run could map so much that Linux denies memory to other programs (`vm.overcommit_memory` 2).
const MAPPED: u64 = 4;

/// The limits of a run. `memory` and `processes`: whether no cgroup enforces these, so that a resource limit does.
pub(crate) fn of_run(limits: &Limits, memory: bool, processes: bool) -> Vec<Rlimit> {
    let wanted = |kind| match kind {
        RlimitKind::Core => Some(CORE),
        RlimitKind::Nofile => Some(limits.open_files),
        // RLIMIT_DATA, because RLIMIT_AS also counts read-only mappings of weights.
        RlimitKind::Data if memory => Some(limits.memory_bytes),
        RlimitKind::Data => Some(round_to_pages(limits.memory_bytes).saturating_mul(MAPPED)),
        RlimitKind::Nproc => processes.then_some(limits.pids),
        RlimitKind::Stack => Some(STACK),
        RlimitKind::Memlock => Some(MEMLOCK),
        RlimitKind::Sigpending => Some(SIGPENDING),
        RlimitKind::Msgqueue | RlimitKind::Nice | RlimitKind::Rtprio => Some(0),
        _ => None,
    };
    TABLE.map(|(kind, ..)| Rlimit { kind, value: at_most_hard(kind, wanted(kind)) }).to_vec()
}

/// Lowers limits. A limit that is lower already stays.
pub(crate) fn lower(limits: &mut [Rlimit], by: &[LowerRlimit]) {
    for lower in by {
        for limit in limits.iter_mut().filter(|limit| limit.kind == lower.kind) {
            let value = limit.value.soft.map_or(lower.value, |own| own.min(lower.value));
            limit.value = RlimitValue { soft: Some(value), hard: Some(value) };
        }
    }
}

/// The limit of core dumps of a run.
pub(crate) fn for_core_dumps() -> RlimitValue {
    at_most_hard(RlimitKind::Core, Some(CORE))
}

/// A process cannot raise its hard limit, so a lower one stays.
fn at_most_hard(kind: RlimitKind, wanted: Option<u64>) -> RlimitValue {
    let hard = rustix::process::getrlimit(kind.resource()).maximum;
    let value = wanted.into_iter().chain(hard).min();
    RlimitValue { soft: value, hard: value }
}

impl RlimitKind {
    fn entry(self) -> &'static (RlimitKind, Resource, &'static str, &'static str) {
        &TABLE[self as usize]
    }

    /// The same in an OCI configuration.
    pub(crate) fn posix(self) -> PosixRlimitType {
        use PosixRlimitType as P;
        match self {
            Self::Cpu => P::RlimitCpu,
            Self::Fsize => P::RlimitFsize,
            Self::Data => P::RlimitData,
            Self::Stack => P::RlimitStack,
            Self::Core => P::RlimitCore,
            Self::Rss => P::RlimitRss,
            Self::Nproc => P::RlimitNproc,
            Self::Nofile => P::RlimitNofile,
            Self::Memlock => P::RlimitMemlock,
            Self::As => P::RlimitAs,
            Self::Locks => P::RlimitLocks,
            Self::Sigpending => P::RlimitSigpending,
            Self::Msgqueue => P::RlimitMsgqueue,
            Self::Nice => P::RlimitNice,
            Self::Rtprio => P::RlimitRtprio,
            Self::Rttime => P::RlimitRttime,
        }
    }

    /// The limit of an OCI configuration.
    pub(crate) fn of_posix(posix: PosixRlimitType) -> Self {
        let kinds = TABLE.iter().map(|(kind, ..)| *kind);
        kinds.into_iter().find(|kind| kind.posix() == posix).unwrap_or(Self::Cpu)
    }

    pub(crate) fn resource(self) -> Resource {
        self.entry().1
    }

    /// The limit of the run that it enforces.
    pub(crate) fn limit(self) -> Option<LimitName> {
        match self {
            Self::Core => Some(LimitName::Core),
            Self::Nofile => Some(LimitName::Files),
            Self::Data => Some(LimitName::Memory),
            Self::Nproc => Some(LimitName::Pids),
            _ => None,
        }
    }
}

impl Rlimit {
    /// Whether a test leaves it out.
    pub(crate) fn is_off(&self) -> bool {
        match self.kind.limit() {
            Some(LimitName::Memory) => hooks::off("memory limit"),
            Some(LimitName::Pids) => hooks::off("pids limit"),
            Some(LimitName::Files) => hooks::off("open files limit"),
            Some(_) => hooks::off("core limit"),
            None => hooks::off("other resource limits"),
        }
    }
}

/// The value of one of `limits`.
pub(crate) fn value(limits: &[Rlimit], kind: RlimitKind) -> Option<RlimitValue> {
    limits.iter().find(|limit| limit.kind == kind).map(|limit| limit.value)
}

/// The names and values of resource limits, as they are observed.
pub(crate) fn named(limits: &[Rlimit]) -> BTreeMap<String, RlimitValue> {
    limits.iter().map(|limit| (limit.kind.entry().2.to_owned(), limit.value)).collect()
}

/// Reads all limits from the text of `/proc/<pid>/limits`.
pub(crate) fn parse(text: &str) -> Result<Vec<Rlimit>> {
    TABLE
        .iter()
        .map(|(kind, _, _, label)| {
            let value = parse_value(text, label).ok_or_else(|| {
                Error::system(format!("the resource limits of the workload lack {label:?}"))
            })?;
            Ok(Rlimit { kind: *kind, value })
        })
        .collect()
}

fn parse_value(text: &str, label: &str) -> Option<RlimitValue> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    let mut fields = line.split_whitespace().map(|field| match field {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    });
    Some(RlimitValue { soft: fields.next()??, hard: fields.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_kinds() {
        for (i, (kind, ..)) in TABLE.iter().enumerate() {
            assert_eq!(*kind as usize, i);
        }
    }

    #[test]
    fn every_limit_of_this_process_is_read() {
        let text = std::fs::read_to_string("/proc/self/limits").expect("limits");
        // This kernel has no other limit. The first line is the heading.
        assert_eq!(text.lines().count(), 1 + TABLE.len());
        for (_, _, _, label) in TABLE {
            assert_eq!(text.lines().filter(|line| line.starts_with(label)).count(), 1, "{label}");
        }
    }

    #[test]
    fn reads_numbers_and_unlimited() {
        let text = "Max cpu time              10                   unlimited            seconds\n";
        assert_eq!(parse_value(text, "Max cpu time"), Some(RlimitValue { soft: Some(10), hard: None }));
        assert_eq!(parse_value(text, "Max file size"), None);
        assert_eq!(parse_value(&text.replace("10", "x"), "Max cpu time"), None);
    }
}
