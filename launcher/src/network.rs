//! The network policy of this process: without an allowance the kernel denies it sockets from the start; with one, as soon as the image is
//! there. Containers never have a network.

use crate::error::{Context as _, Error, Result};
use invarlock_security::{Network, deny_network_for_this_process};

/// What the policy decided about this process.
#[derive(Debug)]
pub enum NetworkPolicy {
    /// The kernel denies sockets to this process and its children; the digest of the filter.
    Denied(String),
    /// This process starts others of this program, each of which enforces the policy on itself. It opens no socket. A filter of its own
    /// would be inherited by the supervisors of their containers, see [`crate::policy::enter`].
    LeftToPrograms,
    /// The user allowed the network, to reach a registry.
    Allowed(Network),
}

impl NetworkPolicy {
    /// Enforces the policy that the allowance gives.
    pub fn enforce(allowed: Option<Network>) -> Result<Self> {
        match allowed {
            Some(network) => Ok(Self::Allowed(network)),
            None => Ok(Self::Denied(deny_network_for_this_process()?)),
        }
    }

    /// The right to open sockets, if the user allowed it.
    pub fn network(&self) -> Option<Network> {
        match self {
            Self::Denied(_) | Self::LeftToPrograms => None,
            Self::Allowed(network) => Some(*network),
        }
    }

    /// The right to open sockets; an error without an allowance. `purpose` needs the network.
    pub fn require(&self, purpose: &str) -> Result<Network> {
        let denied = || Error::input(format!("{purpose}: this program has no network"));
        self.network()
            .ok_or_else(denied)
            .hint("allow it with --allow-network; containers do not get a network from it")
    }

    /// Denies the network from here on: only the image needed it.
    pub fn close(&self) -> Result<()> {
        match self {
            Self::Denied(_) | Self::LeftToPrograms => Ok(()),
            Self::Allowed(_) => deny_network_for_this_process().map(drop),
        }
    }

    /// Digest of the filter that denied the network from the start, as manifests record it.
    pub fn filter_digest(&self) -> Option<&str> {
        match self {
            Self::Denied(digest) => Some(digest),
            Self::Allowed(_) | Self::LeftToPrograms => None,
        }
    }
}
