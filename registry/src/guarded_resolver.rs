//! The resolver of the HTTP client. It rejects addresses outside the scopes that the client is allowed to connect to, so that neither a
//! redirect nor a changed DNS record (DNS rebinding) leads to another network than the one that was checked.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::address::AddressScope;
use crate::deadline;
use crate::names::HostNames;

/// `ureq` stores at most this many addresses of a host.
const MAX_ADDRESSES: usize = 16;

pub(crate) struct GuardedResolver {
    pub names: HostNames,
    /// The allowed scopes. A scope below the range is one that the registry must not direct the client to. A scope above the range means
    /// that the host's address changed since the range was chosen.
    pub scopes: RangeInclusive<AddressScope>,
    /// The host of the proxy that the user configured; it may have any address.
    pub proxy: Option<String>,
}

impl fmt::Debug for GuardedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedResolver").field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// A host has an address that the client must not connect to.
#[derive(Debug)]
pub(crate) struct ForbiddenAddress {
    host: String,
    address: IpAddr,
    changed: bool,
}

impl fmt::Display for ForbiddenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, address, changed } = self;
        match changed {
            true => write!(
                f,
                "the address of {host} changed from a local address to {address} (possible DNS rebinding)"
            ),
            false => write!(
                f,
                "{host} has the address {address}, which belongs to this machine or its network; a registry elsewhere must not direct \
                 the client there"
            ),
        }
    }
}

impl std::error::Error for ForbiddenAddress {}

impl ForbiddenAddress {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        self.changed.then_some("if the network of this machine has just changed, try again")
    }
}

impl GuardedResolver {
    fn check(&self, host: &str, address: IpAddr) -> Result<(), ForbiddenAddress> {
        let scope = AddressScope::of(address);
        if self.proxy.as_deref() == Some(host) || self.scopes.contains(&scope) {
            return Ok(());
        }
        Err(ForbiddenAddress { host: host.to_owned(), address, changed: scope > *self.scopes.end() })
    }
}

impl Resolver for GuardedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or_else(|| if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let found = self.names.resolve(host, deadline::earliest(*timeout.after)).map_err(|error| {
            ureq::Error::Io(io::Error::new(error.kind(), format!("resolving {host}: {error}")))
        })?;
        let mut addresses = self.empty();
        for address in found.into_iter().take(MAX_ADDRESSES) {
            self.check(host, address).map_err(|error| ureq::Error::Other(Box::new(error)))?;
            addresses.push(SocketAddr::new(address, port));
        }
        match addresses.is_empty() {
            true => Err(ureq::Error::HostNotFound),
            false => Ok(addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_addresses_outside_the_allowed_scopes() {
        let names = HostNames::parse(String::new(), "", 53);
        let resolver =
            |scopes| GuardedResolver { names: names.clone(), scopes, proxy: Some("proxy".to_owned()) };
        let registry = resolver(AddressScope::Reserved..=AddressScope::Private);
        let elsewhere = resolver(AddressScope::Private..=AddressScope::Public);
        let address = |text: &str| text.parse::<IpAddr>().expect("address");
        for local in ["127.0.0.1", "10.0.0.1", "fd00::1"] {
            registry.check("host.example", address(local)).expect(local);
        }
        let error = registry.check("host.example", address("192.0.2.1")).expect_err("a public address");
        assert!(error.to_string().contains("DNS rebinding") && error.hint().is_some(), "{error}");
        elsewhere.check("host.example", address("192.0.2.1")).expect("a public address");
        elsewhere.check("host.example", address("10.0.0.1")).expect("as private as the registry");
        let error = elsewhere.check("host.example", address("::1")).expect_err("a loopback address");
        assert!(error.to_string().contains("a registry elsewhere"), "{error}");
        assert_eq!(error.hint(), None);
        for resolver in [registry, elsewhere] {
            resolver.check("proxy", address("127.0.0.1")).expect("the user's proxy");
            resolver.check("proxy", address("192.0.2.1")).expect("the user's proxy");
        }
    }
}
