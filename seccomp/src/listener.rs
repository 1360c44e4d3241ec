//! The listener of a filter with seccomp user notification.

use crate::{Arch, Error, Result, constants, sys, table};
use invarlock_error::Context as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// The target of the `/proc/self/fd` link of such a descriptor.
const KIND: &str = "anon_inode:seccomp notify";

/// Receives notifications from every process that has the filter. It is readable while a call waits, and hung up when no
/// process with the filter is left. When it is closed, denied calls give `ENOSYS`.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A call that waits for its answer. The arguments are registers. The memory to which they point can change at any time and
/// is never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    id: u64,
    /// Its number.
    pub number: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

impl Listener {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Listener(fd)
    }

    /// Checks that a descriptor from another process is a listener.
    pub fn check(fd: OwnedFd) -> Result<Self> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        match link {
            Ok(link) if link.as_os_str() == KIND => Ok(Listener(fd)),
            other => Err(Error::integrity(format!("a descriptor is {other:?}, not a seccomp listener"))),
        }
    }

    /// The next call; none when its caller died before the call was received. Blocks while no call waits.
    pub fn receive(&self) -> Result<Option<Call>> {
        match sys::receive(self.0.as_fd()) {
            Ok(received) => {
                let number = u32::try_from(received.data.nr).unwrap_or(u32::MAX);
                Ok(Some(Call { id: received.id, number, args: received.data.args }))
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
            Err(error) => Err(error).context("receiving a seccomp notification"),
        }
    }

    /// Denies the call with `EPERM`.
    pub fn deny(&self, call: &Call) -> Result<()> {
        self.answer(call, -libc::EPERM, 0)
    }

    /// Lets the kernel continue the call. Only for calls that the profile allows; [`crate::NotifyHandler`] decides that.
    pub(crate) fn allow(&self, call: &Call) -> Result<()> {
        self.answer(call, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
    }

    fn answer(&self, call: &Call, error: i32, flags: u32) -> Result<()> {
        match sys::answer(self.0.as_fd(), call.id, error, flags) {
            // The caller is dead.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            answered => answered.context("answering a seccomp notification"),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Call {
    /// The name on `arch`, with the address family of a socket: `socket(AF_INET)`. The number of different names is bounded.
    pub fn name(&self, arch: Arch) -> String {
        let Some(name) = table::name(arch, self.number) else { return "unknown".to_owned() };
        if !matches!(name, "socket" | "socketpair") {
            return name.to_owned();
        }
        // The family is an int: the kernel reads the low half only.
        let family = constants::family(self.args[0] & u64::from(u32::MAX)).unwrap_or("unknown family");
        format!("{name}({family})")
    }
}
