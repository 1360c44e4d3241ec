//! The rows of the observations.

use serde::{Deserialize, Serialize};

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
    /// Options of the mount, as the kernel lists them.
    pub options: String,
    /// `private`, or how it is tied to mounts elsewhere.
    pub propagation: String,
}

/// One open descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Number.
    pub fd: u32,
    /// What it is, without inode numbers.
    pub what: String,
}

/// What the machine is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostName {
    /// Its name.
    pub host: String,
    /// Its NIS domain.
    pub domain: String,
}

/// Ids in the workload's own user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdsInside {
    /// Real, effective, saved, file system.
    pub uid: Vec<u32>,
    /// Real, effective, saved, file system.
    pub gid: Vec<u32>,
}

/// One file below `/in`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRow {
    /// Where.
    pub target: String,
    /// Its size.
    pub bytes: u64,
    /// Device and inode number: those of the file that the launcher opened. None where the bytes were written for this run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
}

/// What of `/proc` cannot be read off the mount table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcFiles {
    /// Processes in it: init, and the workload.
    pub processes: Vec<u32>,
    /// Paths that would be covered or closed for writing, but that this kernel does not have.
    pub absent: Vec<String>,
}

/// What the program starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Working directory.
    pub cwd: String,
    /// The mount that the working directory is on; none where it lies outside the container.
    pub cwd_mount: Option<String>,
    /// In octal digits.
    pub umask: String,
    /// Whether it leads a session of its own.
    pub session_leader: bool,
    /// Whether it leads a process group of its own.
    pub group_leader: bool,
    /// Whether it has a controlling terminal.
    pub terminal: bool,
    /// How willingly the kernel kills it when memory is short: as the launcher.
    pub oom_score_adj: i32,
}

/// Process 1 of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitRow {
    /// Its id inside; the end of process 1 is the end of every process of its namespace.
    pub pid: u32,
    /// Whether its parent is the supervisor.
    pub child_of_supervisor: bool,
    /// Whether the workload's parent is init.
    pub parent_of_workload: bool,
    /// Whether processes with its ids may look into it.
    pub dumpable: bool,
}
