//! The policy of one command: flags and variables become allowances once, before any work.

use crate::error::{Context as _, Error, Result};
use crate::filter;
use crate::network::NetworkPolicy;
use invarlock_evidence::format::runtime_manifest::Boundary;
use invarlock_evidence::host_execution;
use invarlock_evidence::manifest::ExecutionMode;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::verify::{RuntimeProvenance, VerifyOptions};
use invarlock_runtime::Supervisor;
use invarlock_security::{Allowance, Allowances, Flags};
use std::cell::RefCell;
use std::ffi::OsString;

/// Name of the disabled control of runs with devices, in manifests and in the verifier's options.
pub const DEVICE: &str = "device";
/// Controls whose absence a recipient can accept, by their names in the manifest. For host execution there is an option of its own.
pub const ACCEPTABLE: [&str; 3] = ["allow_network", filter::USER_PROFILE, DEVICE];

/// What a verb needs and what its flags allow.
#[derive(Debug, Default)]
pub struct Needs {
    /// A flag allows the network.
    pub allow_network: bool,
    /// A flag allows execution on the host.
    pub allow_host_execution: bool,
    /// The chosen execution mode.
    pub execution_mode: Option<invarlock_security::ExecutionMode>,
    /// The verb can run on the host instead of in containers, if the policy allows it.
    pub can_run_on_host: bool,
    /// How many containers it starts.
    pub containers: usize,
    /// Its containers have the ids of the image's user, which is not known yet.
    pub has_image_user: bool,
    /// The user supplies a system-call profile for evidence.
    pub user_profile: bool,
    /// The evidence is about a run with devices of the host.
    pub device: bool,
    /// Variables that allow something have no effect: they are meant for the program that calls this one.
    pub only_flags: bool,
    /// It starts processes of this program, each of which denies itself the network.
    pub starts_programs: bool,
}

/// The policy of one command.
#[derive(Debug)]
pub struct Policy {
    /// Exceptions granted by flag or variable.
    pub allowances: Allowances,
    /// Where the evaluator runs.
    pub mode: ExecutionMode,
    /// Who isolates it, where this program does not.
    pub boundary: Option<Boundary>,
    /// Whether the user supplies a system-call profile.
    pub user_profile: bool,
    /// Whether the program of the image gets devices of the host.
    pub device: bool,
    /// The network of this process.
    pub network: NetworkPolicy,
    /// Supervisors started before the network was denied.
    supervisors: RefCell<Vec<Supervisor>>,
    /// Starts another one.
    start: fn() -> Result<Supervisor>,
}

/// Resolves the policy and enforces it on this process.
pub fn enter(needs: &Needs) -> Result<Policy> {
    invarlock_runtime::reexec::guard()?;
    let flags = Flags {
        network: needs.allow_network,
        host_execution: needs.allow_host_execution,
        execution_mode: needs.execution_mode,
        ..Flags::default()
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|_| !needs.only_flags);
    let allowances = Allowances::resolve(&flags, &variable);
    let mode = match needs.can_run_on_host && allowances.host_execution {
        true => ExecutionMode::HostBypass,
        false => ExecutionMode::Container,
    };
    let boundary = boundary(std::env::var_os(BOUNDARY), mode)?;
    let containers = if mode == ExecutionMode::Container { needs.containers } else { 0 };
    // Supervisors start before the network is denied. They prepare while this process works, and they must not inherit its network
    // filter: a workload would inherit it too, and calls that it denies are not reported to the supervisor. A start that fails here is
    // repeated, and its error reported, when the supervisor is needed.
    let start =
        if needs.has_image_user { Supervisor::for_container_with_ids } else { Supervisor::for_container };
    let supervisors = (0..containers).map_while(|_| start().ok()).collect();
    let network = match needs.starts_programs {
        true => NetworkPolicy::LeftToPrograms,
        false => NetworkPolicy::enforce(allowances.network())?,
    };
    Ok(Policy {
        allowances,
        mode,
        boundary,
        user_profile: needs.user_profile,
        device: needs.device,
        network,
        supervisors: RefCell::new(supervisors),
        start,
    })
}

/// Says who isolates a host run.
const BOUNDARY: &str = "INVARLOCK_BOUNDARY";

/// The boundary that the variable names. It is recorded, and nothing is allowed because of it.
fn boundary(named: Option<OsString>, mode: ExecutionMode) -> Result<Option<Boundary>> {
    let Some(name) = named.filter(|_| mode == ExecutionMode::HostBypass) else { return Ok(None) };
    match name.to_str() {
        Some("kubernetes") => Ok(Some(Boundary::Kubernetes)),
        _ => Err(Error::input(format!("{BOUNDARY} is {name:?}"))).hint("use `kubernetes`, or unset it"),
    }
}

impl Policy {
    /// A supervisor for the next container.
    pub fn supervisor(&self) -> Result<Supervisor> {
        self.supervisors.borrow_mut().pop().map_or_else(self.start, Ok)
    }

    /// The exceptions that disable a control, each with the flag or variable that granted it. Remote code and third-party plug-ins are
    /// not listed: this version cannot run them, so allowing them changes nothing. A user profile may allow any call; a device is a driver of
    /// the host.
    pub fn exceptions(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let relevant = |allowance| matches!(allowance, Allowance::Network | Allowance::HostExecution);
        let allowed = self.allowances.iter().filter(move |(allowance, _)| relevant(*allowance));
        let profile = self.user_profile.then(|| (filter::USER_PROFILE, "--seccomp".to_owned()));
        let device = self.device.then(|| (DEVICE, "--device".to_owned()));
        let allowed = allowed.map(|(allowance, source)| (allowance.name(), source.to_string()));
        allowed.chain(profile).chain(device)
    }

    /// The sentence about host execution, if the evaluator runs on the host.
    pub fn host_execution(&self) -> Option<String> {
        let allowed_by = self.allowances.source(Allowance::HostExecution).map(|source| source.to_string());
        (self.mode == ExecutionMode::HostBypass).then(|| host_execution::sentence(allowed_by.as_deref()))
    }

    /// How evidence is verified that a command with this policy made, with the image of this digest: as a reviewer would, but the exceptions
    /// that the command was granted are accepted.
    pub fn own_evidence(&self, profile: Profile, tier: Tier, image: Option<String>) -> VerifyOptions {
        VerifyOptions {
            profile,
            tier: Some(tier),
            runtime_provenance: match image {
                Some(_) => RuntimeProvenance::Container,
                None => RuntimeProvenance::Host,
            },
            expected_image_digest: image,
            any_tiers: true,
            granted: self.loosened(),
            ..VerifyOptions::default()
        }
    }

    /// The names of the exceptions, as manifests list them.
    pub fn loosened(&self) -> Vec<String> {
        self.exceptions().map(|(name, _)| name.to_owned()).collect()
    }
}
