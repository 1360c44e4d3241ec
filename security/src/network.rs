//! Network permission as a value, and denial of the network.

use invarlock_seccomp::Profile;

use crate::Result;
use invarlock_error::{Context as _, Error};

/// The permission to open internet sockets. Only [`crate::Allowances::network`] gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(());

impl Network {
    pub(crate) fn granted() -> Self {
        Self(())
    }
}

/// Denies the network to every thread of this process and to its descendants, by a seccomp filter: `socket` fails with `EPERM` for
/// every family except unix. It cannot be undone. Open sockets keep working, so call it first in `main`. Returns the digest of the
/// filter.
pub fn deny_network_for_this_process() -> Result<String> {
    let deny = || -> Result<String, Error> {
        let program = Profile::no_network().compile()?;
        program.install_all_threads()?;
        Ok(program.digest)
    };
    deny().context("denying this process the network").in_control("system calls")
}
