//! What the launcher's supervisor and the container's init observed of a run, as the runtime manifest records it.
//!
//! The runtime crate writes these values; this crate does not depend on it. A test checks that recorded observations are read by these
//! types without loss.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The process that observed a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Observer {
    /// The supervisor, from outside the container.
    Supervisor,
    /// Init, from inside.
    Init,
}

/// A value and its observer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Observed<T> {
    /// The process that observed it.
    pub observer: Observer,
    /// The value.
    pub value: T,
}

/// The controls of a run as the kernel reported them before the workload's first instruction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Observations {
    /// `container`, or `host-bypass` for a child of the launcher.
    pub mode: String,
    /// Namespaces by name.
    pub namespaces: Observed<BTreeMap<String, Namespace>>,
    /// Names of network interfaces.
    pub interfaces: Observed<Vec<String>>,
    /// Routes that do not belong to `lo`.
    pub routes: Observed<Vec<String>>,
    /// The seccomp filter.
    pub seccomp: Observed<Seccomp>,
    /// `NoNewPrivs`.
    pub no_new_privs: Observed<bool>,
    /// The five capability sets.
    pub capabilities: Observed<Capabilities>,
    /// Ids on the host.
    pub identity: Observed<HostIds>,
    /// Maps of the user namespace.
    pub id_maps: Observed<IdMaps>,
    /// Mount table.
    pub mounts: Observed<Vec<Mount>>,
    /// Descriptors that the workload inherits.
    pub descriptors: Observed<Vec<Descriptor>>,
    /// Names of the workload's environment variables.
    pub environment: Observed<Vec<String>>,
    /// Limits and what enforces each.
    pub limits: Observed<Vec<Limit>>,
    /// All sixteen resource limits by name.
    pub rlimits: Observed<BTreeMap<String, Rlimit>>,
    /// What a crash of the workload would do.
    pub core_dumps: Observed<CoreDumps>,
    /// Lines of `/proc/<pid>/cgroup`.
    pub cgroup: Observed<Vec<String>>,
    /// Controls that only a container has.
    #[serde(flatten)]
    pub contained: Option<Contained>,
}

/// Controls that only a container has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Contained {
    /// Abstract Unix sockets that the workload can reach.
    pub sockets: Observed<Vec<String>>,
    /// Secure bits, hexadecimal.
    pub secure_bits: Observed<String>,
    /// How much of the Landlock restrictions the kernel applied: `full`, `partial` or `none`.
    pub landlock: Observed<String>,
    /// Ids inside.
    pub ids_inside: Observed<IdsInside>,
    /// Host and domain name inside.
    pub host_name: Observed<HostName>,
    /// Files below `/in`.
    pub inputs: Observed<Vec<Input>>,
    /// `user.max_*` of the run's user namespace by name: limits of resources that the kernel counts for each user.
    pub user_limits: Observed<BTreeMap<String, u64>>,
    /// Entries of `/dev` with major and minor number.
    pub devices: Observed<BTreeMap<String, String>>,
    /// Facts about `/proc` that the mount table does not show.
    pub proc: Observed<ProcFiles>,
    /// The workload's process.
    pub process: Observed<Process>,
    /// Process 1 of the container.
    pub init: Observed<Init>,
    /// Signal that init gets when the supervisor dies.
    pub parent_death_signal: Observed<i32>,
}

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Inode number of the launcher's.
    pub launcher: u64,
    /// Inode number of the container's.
    pub container: u64,
    /// Whether they differ.
    pub new: bool,
}

/// The seccomp filter of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Seccomp {
    /// 2: filter mode.
    pub mode: u64,
    /// Number of filters; null where the kernel does not report it.
    pub filters: Option<u64>,
    /// Filters that the launcher already had.
    pub inherited: Option<u64>,
    /// `sha256:` and the digest of the filter that was installed.
    pub digest: String,
}

/// Capability sets, 16 hexadecimal digits each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
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
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostIds {
    /// Real, effective, saved and file-system user id.
    pub uid: Vec<u32>,
    /// The same of the group.
    pub gid: Vec<u32>,
    /// Supplementary groups; a user's run keeps those of the caller, because dropping them takes privilege.
    pub groups: Vec<u32>,
}

/// Maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IdMaps {
    /// `uid_map`, one line an entry: inside, host, count.
    pub uid: Vec<String>,
    /// `gid_map`, in the same form.
    pub gid: Vec<String>,
    /// `setgroups`.
    pub setgroups: String,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Mount point.
    pub target: String,
    /// File system type.
    pub kind: String,
    /// Mount options as the kernel lists them.
    pub options: String,
    /// `private`, or the peer group.
    pub propagation: String,
}

/// One resource limit; null means unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// The soft limit.
    pub soft: Option<u64>,
    /// The hard limit.
    pub hard: Option<u64>,
}

/// What a crash of the workload would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CoreDumps {
    /// What `kernel.core_pattern` names: `file`, `program` or `socket`.
    pub handler: String,
    /// `RLIMIT_CORE`, bytes.
    pub limit: Rlimit,
    /// `coredump_filter`: the kinds of memory that a dump contains, as bits.
    pub filter: u64,
}

/// One open descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// Number.
    pub fd: u32,
    /// Path or kind, without inode numbers.
    pub what: String,
}

/// Host and domain name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostName {
    /// Host name.
    pub host: String,
    /// NIS domain name.
    pub domain: String,
}

/// Ids in the workload's user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IdsInside {
    /// Real, effective, saved and file-system user id.
    pub uid: Vec<u32>,
    /// The same of the group.
    pub gid: Vec<u32>,
}

/// One file below `/in`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Path inside.
    pub target: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Device and inode number of the file that the launcher opened; absent for content written for the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Facts about `/proc` that the mount table does not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProcFiles {
    /// Ids of the processes in it.
    pub processes: Vec<u32>,
    /// Paths that would be masked or read-only and that this kernel does not have.
    pub absent: Vec<String>,
}

/// The workload's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Working directory.
    pub cwd: String,
    /// Mount point of the working directory; null if it is outside the container.
    pub cwd_mount: Option<String>,
    /// File mode creation mask, octal.
    pub umask: String,
    /// Whether it leads its own session.
    pub session_leader: bool,
    /// Whether it leads its own process group.
    pub group_leader: bool,
    /// Whether it has a controlling terminal.
    pub terminal: bool,
    /// OOM score adjustment, as the launcher's.
    pub oom_score_adj: i32,
}

/// Process 1 of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// Its id inside.
    pub pid: u32,
    /// Whether its parent is the supervisor.
    pub child_of_supervisor: bool,
    /// Whether it is the workload's parent.
    pub parent_of_workload: bool,
    /// Whether processes with its ids may inspect it.
    pub dumpable: bool,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// `memory`, `pids`, `cpu`, `core`, `files`, `wall`, `output`, `output_files` or `tmp`.
    pub name: String,
    /// Unit of the numbers: `bytes`, `processes`, `millicpus`, `files` or `milliseconds`.
    pub unit: String,
    /// Requested value, as the kernel rounds it.
    pub asked: u64,
    /// What enforces it.
    pub by: Enforcement,
    /// Value that was read back; null where nothing enforces it.
    pub effective: Option<u64>,
    /// Why it is not enforced, or not by a cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What enforces a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
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
    /// Nothing.
    None,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// By the wall-time limit.
    TimedOut,
    /// By the memory limit.
    MemoryLimit,
    /// By the caller.
    Cancelled,
}

/// What a run used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Wall time, milliseconds.
    pub wall_ms: u64,
    /// Processor time in user mode, milliseconds.
    pub cpu_user_ms: u64,
    /// Processor time in the kernel, milliseconds.
    pub cpu_system_ms: u64,
    /// Peak memory, bytes; null if unknown.
    pub peak_memory_bytes: Option<u64>,
    /// What measured it: `cgroup`, `rusage` (the largest process) or `watchdog` (sampled sum).
    pub peak_memory_by: Option<String>,
    /// Processes that the kernel killed for memory; null if unknown.
    pub oom_kills: Option<u64>,
    /// Forks that the pids limit denied; null if unknown.
    pub forks_refused: Option<u64>,
    /// Names of the limits that were reached.
    pub limits_hit: Vec<String>,
    /// Bytes written to standard output.
    pub stdout_bytes: u64,
    /// Bytes written to standard error.
    pub stderr_bytes: u64,
    /// Bytes of both that were dropped.
    pub log_bytes_dropped: u64,
}
