//! Limits, and what holds each.

use crate::spec::LimitName;
use serde::{Deserialize, Serialize};

/// What holds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A controller of the run's cgroup.
    Cgroup,
    /// A resource limit of each process.
    Rlimit,
    /// The set of processors it may run on.
    Affinity,
    /// The supervisor's clock.
    Watchdog,
    /// The size of a tmpfs.
    Tmpfs,
    /// Nothing.
    None,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitRow {
    /// Which.
    pub name: LimitName,
    /// Unit of the numbers.
    pub unit: String,
    /// What was asked for, in the kernel's rounding.
    pub asked: u64,
    /// What holds it.
    pub by: By,
    /// What was read back.
    pub effective: Option<u64>,
    /// Why it is not held, or not by a cgroup.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

impl LimitRow {
    pub(crate) fn new(
        name: LimitName,
        asked: u64,
        by: By,
        effective: Option<u64>,
        reason: Option<String>,
    ) -> Self {
        let unit = match name {
            LimitName::Memory | LimitName::Output | LimitName::Tmp | LimitName::Core => "bytes",
            LimitName::Pids => "processes",
            LimitName::Cpu => "millicpus",
            LimitName::Files | LimitName::OutputFiles => "files",
            LimitName::Wall => "milliseconds",
        };
        LimitRow { name, unit: unit.into(), asked, by, effective, reason }
    }
}
