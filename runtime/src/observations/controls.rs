//! The observed value of each control.

use serde::{Deserialize, Serialize};

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Inode number of the launcher's namespace.
    pub launcher: u64,
    /// Inode number of the container's namespace.
    pub container: u64,
    /// Whether they differ.
    pub new: bool,
}

/// The seccomp state of the workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// Seccomp mode; 2 means filters.
    pub mode: u64,
    /// Number of filters; none if the kernel does not report it.
    pub filters: Option<u64>,
    /// Number of filters that the launcher already had.
    pub inherited: Option<u64>,
    /// Digest of the run's filter.
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

/// Ids on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIds {
    /// Real, effective, saved, file system.
    pub uid: Vec<u32>,
    /// Real, effective, saved, file system.
    pub gid: Vec<u32>,
    /// Supplementary groups. A user's run keeps the caller's, because dropping them requires privilege.
    pub groups: Vec<u32>,
}

/// Id maps of a user namespace.
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
pub struct MountObservation {
    /// Mount point.
    pub target: String,
    /// File system type.
    pub kind: String,
    /// Options of the mount as the kernel lists them.
    pub options: String,
    /// `private`, or the peer groups of the mount.
    pub propagation: String,
}

/// One open descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Number.
    pub fd: u32,
    /// Its target, without inode numbers.
    pub what: String,
}

/// Names of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostName {
    /// Host name.
    pub host: String,
    /// NIS domain name.
    pub domain: String,
}

/// Ids in the workload's user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerIds {
    /// Real, effective, saved, file system.
    pub uid: Vec<u32>,
    /// Real, effective, saved, file system.
    pub gid: Vec<u32>,
}

/// One file below `/in`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputObservation {
    /// Its path.
    pub target: String,
    /// Its size.
    pub bytes: u64,
    /// Device and inode number of the file that the launcher opened; none if its bytes were written for this run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
}

/// Facts of `/proc` that the mount table does not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcFiles {
    /// Visible processes: init and the workload.
    pub processes: Vec<u32>,
    /// Paths to be masked or made read-only that this kernel does not have.
    pub absent: Vec<String>,
}

/// Attributes that the program inherits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Working directory.
    pub cwd: String,
    /// The mount of the working directory; none if it is outside the container.
    pub cwd_mount: Option<String>,
    /// Umask in octal digits.
    pub umask: String,
    /// Whether it leads its own session.
    pub session_leader: bool,
    /// Whether it leads its own process group.
    pub group_leader: bool,
    /// Whether it has a controlling terminal.
    pub terminal: bool,
    /// Its OOM score adjustment: the launcher's.
    pub oom_score_adj: i32,
}

/// Process 1 of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitObservation {
    /// Its id inside. The kernel kills every process of the namespace when process 1 ends.
    pub pid: u32,
    /// Whether its parent is the supervisor.
    pub child_of_supervisor: bool,
    /// Whether the workload's parent is init.
    pub parent_of_workload: bool,
    /// Whether processes with its ids may inspect it.
    pub dumpable: bool,
}
