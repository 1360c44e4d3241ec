//! What the kernel says of the boundary, before the workload's first instruction: written down, and compared with what was asked for.

mod check;
mod view;

use crate::spec::LimitName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
pub(crate) use view::View;

/// Who saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observer {
    /// Our supervisor, from outside.
    Supervisor,
    /// Our init, from inside.
    Init,
}

/// A value and who saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen<T> {
    /// Who.
    pub observer: Observer,
    /// What.
    pub value: T,
}

/// The boundary as observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observations {
    /// `container`, or `host-bypass` for a plain child.
    pub mode: String,
    /// Namespaces by name.
    pub namespaces: Seen<BTreeMap<String, Namespace>>,
    /// Names of network interfaces.
    pub interfaces: Seen<Vec<String>>,
    /// Routes that do not belong to `lo`.
    pub routes: Seen<Vec<String>>,
    /// The filter.
    pub seccomp: Seen<Seccomp>,
    /// `NoNewPrivs`.
    pub no_new_privs: Seen<bool>,
    /// The five capability sets.
    pub capabilities: Seen<Capabilities>,
    /// Ids on the host.
    pub identity: Seen<HostIds>,
    /// Maps of the user namespace.
    pub id_maps: Seen<IdMaps>,
    /// Mount table.
    pub mounts: Seen<Vec<MountRow>>,
    /// Descriptors that the program gets.
    pub descriptors: Seen<Vec<Descriptor>>,
    /// Names of environment variables.
    pub environment: Seen<Vec<String>>,
    /// Entries of `/dev`.
    pub devices: Seen<Vec<String>>,
    /// Limits, with what holds each.
    pub limits: Seen<Vec<LimitRow>>,
    /// Lines of `/proc/<pid>/cgroup`.
    pub cgroup: Seen<Vec<String>>,
}

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Inode number of the launcher's.
    pub launcher: u64,
    /// Inode number of the container's.
    pub container: u64,
    /// Whether they differ.
    pub new: bool,
}

/// The filter of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// 2: filters.
    pub mode: u64,
    /// Number of filters; none where the kernel does not say.
    pub filters: Option<u64>,
    /// How many of them the launcher had already.
    pub inherited: Option<u64>,
    /// Digest of ours.
    pub digest: String,
}

/// Capability sets as the kernel prints them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// `CapInh`.
    pub inheritable: String,
    /// `CapPrm`.
    pub permitted: String,
    /// `CapEff`.
    pub effective: String,
    /// `CapBnd`.
    pub bounding: String,
    /// `CapAmb`.
    pub ambient: String,
}

/// Ids as the host sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIds {
    /// Real, effective, saved, file system.
    pub uid: Vec<u32>,
    /// Real, effective, saved, file system.
    pub gid: Vec<u32>,
    /// Supplementary groups; a user's run keeps the caller's, which nobody without privilege can give up.
    pub groups: Vec<u32>,
}

/// Maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// `uid_map`, one line an entry: inside, host, count.
    pub uid: Vec<String>,
    /// `gid_map`.
    pub gid: Vec<String>,
    /// `setgroups`.
    pub setgroups: String,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRow {
    /// Where.
    pub target: String,
    /// File system type.
    pub kind: String,
    /// Options of the mount.
    pub options: Vec<String>,
    /// Groups of mounts that it gives what is mounted on it to, or gets it from. There are none where it is the run's alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub propagation: Vec<String>,
}

/// One open descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Number.
    pub fd: u32,
    /// What it is, without inode numbers.
    pub what: String,
}

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

/// What init saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct InsideObservations {
    pub(crate) devices: Vec<String>,
    pub(crate) environment: Vec<String>,
}

/// Namespaces that are always new.
pub(crate) const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];

/// What `/dev` holds.
pub(crate) const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];
