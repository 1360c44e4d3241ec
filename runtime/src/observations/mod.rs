//! Observations: the boundary as the kernel reports it before the workload's first instruction. Types only.
//!
//! Their JSON is part of the evidence of a run, so field names in JSON never change.

mod controls;
mod limit;

pub use controls::{
    Capabilities, ContainerIds, Descriptor, HostIds, HostName, IdMaps, InitObservation, InputObservation,
    MountObservation, Namespace, ProcFiles, Process, Seccomp,
};
pub use limit::{LimitMechanism, LimitObservation};

use crate::core_dumps::CoreDumps;
use crate::landlock::Landlock;
use crate::rlimit::RlimitValue;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The process that observed a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observer {
    /// The supervisor, from outside the container.
    Supervisor,
    /// Init, or the future workload, from inside.
    Init,
}

/// A value and its observer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observed<T> {
    /// The process that observed it.
    pub observer: Observer,
    /// The observed value.
    pub value: T,
}

/// The observed boundary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observations {
    /// `container`, or `host-bypass` for a plain child.
    pub mode: String,
    /// Namespaces by name.
    pub namespaces: Observed<BTreeMap<String, Namespace>>,
    /// Names of network interfaces.
    pub interfaces: Observed<Vec<String>>,
    /// Routes that do not belong to `lo`.
    pub routes: Observed<Vec<String>>,
    /// The system-call filter.
    pub seccomp: Observed<Seccomp>,
    /// `NoNewPrivs`.
    pub no_new_privs: Observed<bool>,
    /// The five capability sets.
    pub capabilities: Observed<Capabilities>,
    /// Ids on the host.
    pub identity: Observed<HostIds>,
    /// Id maps of the user namespace.
    pub id_maps: Observed<IdMaps>,
    /// Mount table.
    pub mounts: Observed<Vec<MountObservation>>,
    /// Descriptors that the program inherits.
    pub descriptors: Observed<Vec<Descriptor>>,
    /// Names of the environment variables that the program inherits.
    pub environment: Observed<Vec<String>>,
    /// Limits and their mechanisms.
    pub limits: Observed<Vec<LimitObservation>>,
    /// All resource limits by name.
    pub rlimits: Observed<BTreeMap<String, RlimitValue>>,
    /// What a crash of the workload would do.
    pub core_dumps: Observed<CoreDumps>,
    /// Lines of `/proc/<pid>/cgroup`.
    pub cgroup: Observed<Vec<String>>,
    /// The controls that only a container has.
    #[serde(flatten)]
    pub container: Option<ContainerObservations>,
}

/// The controls that only a container has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerObservations {
    /// Abstract Unix sockets in the workload's network namespace: the first few.
    pub sockets: Observed<Vec<String>>,
    /// Secure bits as `prctl(2)` numbers them.
    pub secure_bits: Observed<String>,
    /// How much of the Landlock restrictions the kernel applies.
    pub landlock: Observed<Landlock>,
    /// Ids in the workload's user namespace.
    #[serde(rename = "ids_inside")]
    pub container_ids: Observed<ContainerIds>,
    /// Host name inside.
    pub host_name: Observed<HostName>,
    /// Files below `/in`.
    pub inputs: Observed<Vec<InputObservation>>,
    /// `user.max_*` of the run's user namespace, by name.
    pub user_limits: Observed<BTreeMap<String, u64>>,
    /// Entries of `/dev` with their numbers.
    pub devices: Observed<BTreeMap<String, String>>,
    /// Facts of `/proc` that the mount table does not show.
    pub proc: Observed<ProcFiles>,
    /// Attributes that the program inherits.
    pub process: Observed<Process>,
    /// Process 1 of the container.
    pub init: Observed<InitObservation>,
    /// The signal that init gets when its parent, the supervisor, dies.
    pub parent_death_signal: Observed<i32>,
}

/// What init observes of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct InitReport {
    pub(crate) host_name: HostName,
    pub(crate) parent_death_signal: i32,
    pub(crate) user_limits: BTreeMap<String, u64>,
}

/// What the future workload, a copy of init, observes of itself just before it installs its filter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkloadReport {
    pub(crate) environment: Vec<String>,
    pub(crate) secure_bits: String,
    pub(crate) landlock: Landlock,
    pub(crate) ids: ContainerIds,
}
