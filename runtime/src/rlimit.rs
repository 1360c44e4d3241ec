//! Resource limits of the workload.

use crate::hooks;
use crate::spec::LimitName;
use rustix::process::Resource;
use serde::{Deserialize, Serialize};

/// One resource limit, soft and hard.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Rlimit {
    pub(crate) kind: RlimitKind,
    pub(crate) value: u64,
}

/// The resource limits that a run uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RlimitKind {
    Core,
    Nofile,
    Data,
    Nproc,
}

impl RlimitKind {
    pub(crate) fn resource(self) -> Resource {
        match self {
            Self::Core => Resource::Core,
            Self::Nofile => Resource::Nofile,
            Self::Data => Resource::Data,
            Self::Nproc => Resource::Nproc,
        }
    }

    /// The limit of the run that it enforces.
    pub(crate) fn name(self) -> LimitName {
        match self {
            Self::Core => LimitName::Core,
            Self::Nofile => LimitName::Files,
            Self::Data => LimitName::Memory,
            Self::Nproc => LimitName::Pids,
        }
    }

    /// Its name in `/proc/<pid>/limits`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Core => "Max core file size",
            Self::Nofile => "Max open files",
            Self::Data => "Max data size",
            Self::Nproc => "Max processes",
        }
    }
}

impl Rlimit {
    /// Whether a test leaves it out.
    pub(crate) fn is_off(&self) -> bool {
        match self.kind.name() {
            LimitName::Memory => hooks::off("memory limit"),
            LimitName::Pids => hooks::off("pids limit"),
            LimitName::Files => hooks::off("open files limit"),
            _ => hooks::off("core limit"),
        }
    }
}
