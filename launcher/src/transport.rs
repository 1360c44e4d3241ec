//! Images from and to registries, where the user allowed this command the network.

use crate::args::ReachArgs;
use crate::error::{Error, Result};
use crate::policy::Policy;
use crate::ui::{Level, Ui};
use invarlock_error::Kind;
use invarlock_images::{Policy as Keep, Reference, RegistryName, Store};
use invarlock_registry::{Client, Options};
use invarlock_security::{Network, deny_network_for_this_process};

/// The registry's name in a reference.
pub fn name(text: &str) -> Result<RegistryName> {
    match Reference::parse(text)? {
        Reference::Registry(name) => Ok(name),
        other => Err(Error::input(format!(
            "{other} is no image of a registry, which looks like docker://HOST/NAME:TAG"
        ))),
    }
}

/// The right to open sockets, or how it is had.
pub fn network(policy: &Policy, doing: &str) -> Result<Network> {
    policy.allowances.network().ok_or_else(|| {
        Error::input(format!(
            "{doing} needs the network, which this program has only where it is allowed: give --allow-network (containers get none by it)"
        ))
    })
}

/// A client for the repository of `name`.
pub fn client(network: Network, name: &RegistryName, reach: ReachArgs, push: bool) -> Result<Client> {
    let mut options = Options::default();
    (options.plain_http, options.push) = (reach.plain_http, push);
    Client::new(network, name, options)
}

/// Pulls an image of a registry that is not in the store, where this command was allowed the network; where not, whoever needs it
/// says so. What was pulled before is used as it is.
pub fn pull_missing(ui: &Ui, store: &Store, reference: &Reference, policy: &Policy) -> Result<()> {
    let (Reference::Registry(name), Some(network)) = (reference, policy.allowances.network()) else {
        return Ok(());
    };
    if !matches!(store.resolve(reference), Err(error) if error.kind() == Kind::Input) {
        return Ok(());
    }
    let client = client(network, name, ReachArgs::default(), false)?;
    let step = ui.step("pulling", 0, true);
    let pulled =
        store.pull(name, &client, None, Some(Keep::default()), &|more, total| step.grow(more, total))?;
    step.done(&format!("{name} {}", pulled.manifest_digest));
    ui.say(Level::Verbose, &format!("{name} is in the store as {}", pulled.reference));
    Ok(())
}

/// The network was for the image alone: from here on the kernel refuses it to this process.
pub fn close(policy: &Policy) -> Result<()> {
    if policy.network_filter.is_none() {
        deny_network_for_this_process()?;
    }
    Ok(())
}
