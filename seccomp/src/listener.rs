//! The calls that a filter refused, as whoever holds its listener hears them.

use crate::{Arch, Error, Result, constants, sys, table};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// What the kernel calls such a descriptor.
const KIND: &str = "anon_inode:seccomp notify";

/// Hears the refused calls of every process that has the filter. It is readable while a call waits, and hung up when no process with
/// the filter is left. Where it is closed, refused calls give `ENOSYS`.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A call that waits for its answer. Its arguments are registers: what they point to can change at any time and is nobody's business.
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

    /// A descriptor that came from another process, where it is a listener.
    pub fn check(fd: OwnedFd) -> Result<Self> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        match link {
            Ok(link) if link.as_os_str() == KIND => Ok(Listener(fd)),
            other => {
                Err(Error::integrity(format!("a descriptor is {other:?}, not a listener of refused calls")))
            }
        }
    }

    /// The next call; none where its caller died before it was heard. Waits where no call does.
    pub fn hear(&self) -> Result<Option<Call>> {
        match sys::receive(self.0.as_fd()) {
            Ok(heard) => {
                let number = u32::try_from(heard.data.nr).unwrap_or(u32::MAX);
                Ok(Some(Call { id: heard.id, number, args: heard.data.args }))
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
            Err(error) => Err(Error::system(format!("hearing a refused call: {error}"))),
        }
    }

    /// `EPERM`.
    pub fn refuse(&self, call: &Call) -> Result<()> {
        self.answer(call, -libc::EPERM, 0)
    }

    /// The kernel goes on with it. Only for a call that the profile allows: [`crate::NotifyHandler`] knows.
    pub(crate) fn let_through(&self, call: &Call) -> Result<()> {
        self.answer(call, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
    }

    fn answer(&self, call: &Call, error: i32, flags: u32) -> Result<()> {
        match sys::answer(self.0.as_fd(), call.id, error, flags) {
            // Its caller is dead.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(error) => Err(Error::system(format!("answering a refused call: {error}"))),
            Ok(()) => Ok(()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Call {
    /// Its name on `arch`, with the address family where it makes a socket: `socket(AF_INET)`. There are only so many of these.
    pub fn name(&self, arch: Arch) -> String {
        let Some(name) = table::name(arch, self.number) else { return "unknown".to_owned() };
        if !matches!(name, "socket" | "socketpair") {
            return name.to_owned();
        }
        // An int: the kernel reads the low half.
        let family = constants::family(self.args[0] & u64::from(u32::MAX)).unwrap_or("unknown family");
        format!("{name}({family})")
    }
}
