//! What is allowed, and why: flags and variables become allowances once, before any work, and the network goes off.

use crate::args::{AllowArgs, Cli, Command, ExecutionMode, ImageCommand, RuntimeCommand};
use crate::error::Result;
use crate::filter;
use invarlock_runtime::Supervisor;
use invarlock_security::{Allowance, Allowances, Flags, deny_network_for_this_process};
use std::cell::RefCell;

/// The policy of one command.
#[derive(Debug)]
pub struct Policy {
    /// Exceptions granted by flag or variable.
    pub allowances: Allowances,
    /// Where the measuring runs.
    pub mode: ExecutionMode,
    /// Whether the user brings a system-call profile.
    pub custom_filter: bool,
    /// Digest of the filter that refuses this process and its children the network; none when it was allowed.
    pub network_filter: Option<String>,
    /// Supervisors that were started before the network went off.
    early: RefCell<Vec<Supervisor>>,
}

/// Resolves the policy and enforces what concerns this process: without an allowance the kernel refuses it sockets.
pub fn enter(cli: &Cli) -> Result<Policy> {
    invarlock_runtime::reexec::guard()?;
    let none = AllowArgs::default();
    let (allow, asked) = match &cli.command {
        Command::Evaluate(a) => (&a.allow, a.execution_mode),
        _ => (&none, ExecutionMode::Container),
    };
    let flags = Flags {
        network: allow.allow_network || allows_network(&cli.command),
        host_execution: allow.allow_host_execution,
        execution_mode_host: asked == ExecutionMode::Host,
        ..Flags::default()
    };
    let allowances = Allowances::resolve(&flags, &|name| std::env::var(name).ok());
    let mode = if allowances.host_execution { ExecutionMode::Host } else { ExecutionMode::Container };
    // Now, and not when it is known what to run: they make ready meanwhile, and a filter of ours, which a workload would inherit, would
    // refuse what its own is to hear. A start that fails is tried again when it is needed, and says so then.
    let early = (0..containers(cli, mode)).map_while(|_| Supervisor::for_container().ok()).collect();
    let network_filter = match allowances.network() {
        Some(_) => None,
        None => Some(deny_network_for_this_process()?),
    };
    let custom_filter = matches!(&cli.command, Command::Evaluate(a) if a.runtime.seccomp.is_some());
    Ok(Policy { allowances, mode, custom_filter, network_filter, early: RefCell::new(early) })
}

/// Whether the network was allowed for an image alone.
fn allows_network(command: &Command) -> bool {
    match command {
        Command::Runtime(RuntimeCommand::Image(ImageCommand::Pull(it))) => it.reach.allow_network,
        Command::Runtime(RuntimeCommand::Image(ImageCommand::Push(it))) => it.reach.allow_network,
        Command::Runtime(RuntimeCommand::Run { what, .. } | RuntimeCommand::Learn { what, .. }) => {
            what.allow_network
        }
        _ => false,
    }
}

/// How many containers the command will run.
fn containers(cli: &Cli, mode: ExecutionMode) -> usize {
    match &cli.command {
        Command::Runtime(RuntimeCommand::Run { .. } | RuntimeCommand::Learn { .. }) => 1,
        Command::Evaluate(a) if mode == ExecutionMode::Container && !a.dry_run => {
            if a.baseline_report.is_some() { 1 } else { 2 }
        }
        _ => 0,
    }
}

impl Policy {
    /// A supervisor for the next container.
    pub fn supervisor(&self) -> invarlock_runtime::Result<Supervisor> {
        self.early.borrow_mut().pop().map_or_else(Supervisor::for_container, Ok)
    }

    /// The exceptions that loosen something here, with what granted each. No code of a checkpoint and no plug-in can run in
    /// this version, so allowing them loosens nothing. A profile of the user's may allow anything.
    pub fn exceptions(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let allowed = self.allowances.iter();
        let allowed = allowed.filter(|(a, _)| matches!(a, Allowance::Network | Allowance::HostExecution));
        let custom = self.custom_filter.then(|| (filter::CUSTOM, "--seccomp".to_owned()));
        allowed.map(|(what, by)| (what.name(), by.to_string())).chain(custom)
    }

    /// Their names, as manifests list them.
    pub fn loosened(&self) -> Vec<String> {
        self.exceptions().map(|(what, _)| what.to_owned()).collect()
    }
}
