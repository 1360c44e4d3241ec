//! What the kernel says of the boundary, before the workload's first instruction: written down, and compared with what was asked for.

mod check;
mod files;
mod limit;
mod rows;
mod view;

pub(crate) use files::{Root, expected_inputs};
pub use limit::{By, LimitRow};
pub use rows::{
    Capabilities, Descriptor, HostIds, HostName, IdMaps, IdsInside, InitRow, InputRow, MountRow, Namespace,
    ProcFiles, Process, Seccomp,
};
pub(crate) use view::{View, status_numbers};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// Names of the environment variables that the program gets.
    pub environment: Seen<Vec<String>>,
    /// Limits, with what holds each.
    pub limits: Seen<Vec<LimitRow>>,
    /// Lines of `/proc/<pid>/cgroup`.
    pub cgroup: Seen<Vec<String>>,
    /// The rest, of a container only.
    #[serde(flatten)]
    pub contained: Option<Contained>,
}

/// What only a container has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contained {
    /// Abstract unix sockets that the workload could reach: the first of them.
    pub sockets: Seen<Vec<String>>,
    /// Its secure bits, as `prctl(2)` numbers them.
    pub secure_bits: Seen<String>,
    /// Ids as the workload sees them.
    pub ids_inside: Seen<IdsInside>,
    /// What the machine is called inside.
    pub host_name: Seen<HostName>,
    /// Files below `/in`.
    pub inputs: Seen<Vec<InputRow>>,
    /// Entries of `/dev` with their numbers.
    pub devices: Seen<BTreeMap<String, String>>,
    /// What of `/proc` cannot be read off the mount table.
    pub proc: Seen<ProcFiles>,
    /// What the program starts with.
    pub process: Seen<Process>,
    /// Process 1 of the container.
    pub init: Seen<InitRow>,
    /// Which signal init gets when its parent, the supervisor, dies.
    pub parent_death_signal: Seen<i32>,
}

/// What init saw of itself and around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeenByInit {
    pub(crate) host_name: HostName,
    pub(crate) parent_death_signal: i32,
}

/// What the workload-to-be, which is a copy of init, saw of itself last before its filter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeenByWorkload {
    pub(crate) environment: Vec<String>,
    pub(crate) secure_bits: String,
    pub(crate) ids: IdsInside,
}

/// Namespaces that are always new.
pub(crate) const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];

/// What `/dev` holds: names, and major and minor numbers.
pub const DEVICES: [(&str, &str); 5] =
    [("full", "1:7"), ("null", "1:3"), ("random", "1:8"), ("urandom", "1:9"), ("zero", "1:5")];

/// What the machine is called inside.
pub(crate) const HOST_NAME: &str = "invarlock";
/// Its NIS domain: the kernel's word for none.
pub(crate) const DOMAIN_NAME: &str = "(none)";
/// The umask that the workload starts with.
pub(crate) const UMASK: u32 = 0o022;
