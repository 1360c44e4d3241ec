//! Limits and the mechanisms that enforce them.

use crate::spec::LimitName;
use serde::{Deserialize, Serialize};

/// The mechanism that enforces a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitMechanism {
    /// A controller of the run's cgroup.
    Cgroup,
    /// A resource limit of each process.
    Rlimit,
    /// The processor affinity.
    Affinity,
    /// The supervisor's clock.
    Watchdog,
    /// The size of a tmpfs.
    Tmpfs,
    /// No mechanism.
    None,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitObservation {
    /// Its name.
    pub name: LimitName,
    /// Unit of the numbers.
    pub unit: String,
    /// The requested value, as the kernel rounds it.
    #[serde(rename = "asked")]
    pub requested: u64,
    /// The mechanism that enforces it.
    #[serde(rename = "by")]
    pub mechanism: LimitMechanism,
    /// The value that was read back.
    pub effective: Option<u64>,
    /// Why it is not enforced, or not by a cgroup.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

impl LimitObservation {
    pub(crate) fn new(
        name: LimitName,
        requested: u64,
        mechanism: LimitMechanism,
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
        LimitObservation { name, unit: unit.into(), requested, mechanism, effective, reason }
    }
}
