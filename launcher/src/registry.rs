//! Access to registries, for a command that was allowed the network.

use crate::error::{Context as _, Error, Kind, Result};
use crate::network::NetworkPolicy;
use crate::ui::{Level, Ui};
use invarlock_images::{Policy as SpecialFiles, Reference, RegistryName, Store};
use invarlock_registry::{Client, Options};
use invarlock_security::Network;

/// How a registry is reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct RegistryOptions {
    /// Connect without TLS.
    pub plain_http: bool,
    /// Ask for the right to push.
    pub push: bool,
}

/// The registry's name in a reference.
pub fn name(text: &str) -> Result<RegistryName> {
    match Reference::parse(text)? {
        Reference::Registry(name) => Ok(name),
        other => Err(Error::input(format!("{other} is not an image of a registry")))
            .hint("the form is docker://HOST/NAME:TAG"),
    }
}

/// A client for the repository of `name`.
pub fn client(network: Network, name: &RegistryName, options: RegistryOptions) -> Result<Client> {
    let mut client = Options::default();
    (client.plain_http, client.push) = (options.plain_http, options.push);
    Client::new(network, name, client)
}

/// Pulls an image of a registry that is not in the store, if the network is allowed. Without the network, resolving the image fails later.
/// An image that is in the store is not pulled again.
pub fn pull_missing(ui: &Ui, store: &Store, reference: &Reference, network: &NetworkPolicy) -> Result<()> {
    let (Reference::Registry(name), Some(network)) = (reference, network.network()) else {
        return Ok(());
    };
    let is_missing = store.resolve(reference).is_err_and(|error| error.kind() == Kind::Input);
    if !is_missing {
        return Ok(());
    }
    let client = client(network, name, RegistryOptions::default())?;
    let step = ui.step("pulling", 0, true);
    let add = |bytes, total| step.add_of(bytes, total);
    let pulled = store.pull(name, &client, None, Some(SpecialFiles::default()), &add)?;
    step.done(&format!("{name} {}", pulled.manifest_digest));
    ui.say(Level::Verbose, &format!("{name} is in the store as {}", pulled.reference));
    Ok(())
}
