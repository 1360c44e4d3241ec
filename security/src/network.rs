//! The network as a value, and its denial.

use invarlock_seccomp::Profile;

use crate::Result;
use invarlock_error::{Context as _, Error};

/// The right to open internet sockets. There is no other way to one than [`crate::Allowances::network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(());

impl Network {
    pub(crate) fn granted() -> Self {
        Self(())
    }
}

/// Takes the network away from every thread of this process and from whatever they start, for good, by the kernel: `socket` gives
/// `EPERM` for every family but unix. Descriptors that are open already stay, so this comes first in `main`. Returns the
/// digest of the filter.
pub fn deny_network_for_this_process() -> Result<String> {
    let deny = || -> Result<String, Error> {
        let program = Profile::no_network().compile()?;
        program.install_all_threads()?;
        Ok(program.digest)
    };
    deny().context("denying this process the network").in_control("system calls")
}
