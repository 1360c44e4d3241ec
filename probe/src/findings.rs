//! What is known outside the container after all runs of the attacker.

use crate::answer::Answer;
use invarlock_error::Result;
use invarlock_runtime::{Identity, Limits, Observations, Status};
use std::collections::BTreeMap;

/// Everything that the judgement of an attack may use.
pub(crate) struct Findings {
    /// The ids of the runs.
    pub(crate) identity: Identity,
    /// The limits of the run with all attacks.
    pub(crate) limits: Limits,
    /// What the attacker reported, by attack. Untrusted.
    pub(crate) answers: BTreeMap<String, Answer>,
    /// What supervisor and init observed of the run with all attacks.
    pub(crate) observations: Observations,
    /// How each separate run ended.
    pub(crate) separate_runs: BTreeMap<&'static str, Result<Status>>,
    /// What the attacks changed on the host.
    pub(crate) host_changes: HostChanges,
}

/// What changed on the host.
pub(crate) struct HostChanges {
    /// Changed files: the targets of attacks and the launcher's own executable.
    pub(crate) files: Vec<String>,
    /// Devices of the host with another kind, mode or owner.
    pub(crate) devices: Vec<String>,
    /// Whether a process connected to the abstract socket of the host.
    pub(crate) socket_reached: bool,
    /// Process ids of attackers that still run.
    pub(crate) processes: Vec<u32>,
}
