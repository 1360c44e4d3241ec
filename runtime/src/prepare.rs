//! Root only: layers and inputs as detached mounts, made from the launcher's own handles in the host's mount namespace.
//!
//! The workload's host id owns nothing. A file that not everybody may read is shown to it as its own through an id-mapped mount, which
//! takes a user namespace that maps the file's owner to that id.

use crate::failure::SystemCall as _;
use crate::identity::Identity;
use crate::mounts;
use crate::protocol::Request;
use crate::supervisor::NAMESPACES_REMEDY;
use crate::sys::{self, Forked};
use invarlock_error::{Context as _, Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

/// The namespaces made so far, by owner.
#[derive(Default)]
struct IdMapped(BTreeMap<(u32, u32), OwnedFd>);

/// Detached, read-only mounts of layers and of inputs that are files (others stay as they are), in the order of `fds`.
pub(crate) fn mounts(request: &Request, identity: Identity, fds: Vec<OwnedFd>) -> Result<Vec<OwnedFd>> {
    let mut namespaces = IdMapped::default();
    let layers = request.rootfs.len();
    let mut out = Vec::with_capacity(fds.len());
    for (i, fd) in fds.into_iter().enumerate() {
        let mount = match i.checked_sub(layers).and_then(|i| request.inputs.get(i)) {
            None => {
                let layer = mounts::clone_handle(fd.as_fd()).context("mounting a layer of the image")?;
                mounts::restrict(&layer, mounts::layer()).context("making a layer read-only")?;
                layer
            }
            Some(input) => match &input.path {
                None => fd,
                Some(path) => namespaces
                    .input(fd, identity)
                    .map_err(|e| e.context(format!("mounting input {}", path.display())))
                    .in_control("inputs")?,
            },
        };
        out.push(mount);
    }
    Ok(out)
}

impl IdMapped {
    fn input(&mut self, fd: OwnedFd, identity: Identity) -> Result<OwnedFd> {
        let (uid, gid, everybody) = mounts::owner(fd.as_fd())?;
        let mount = match mounts::clone_handle(fd.as_fd()) {
            Err(rustix::io::Errno::NOENT) => {
                return Err(Error::safety("it was removed or replaced after it was checked"));
            }
            other => other.context("making a mount of it")?,
        };
        mounts::restrict(&mount, mounts::input()).context("making it read-only")?;
        if !everybody {
            let namespace = match self.0.entry((uid, gid)) {
                std::collections::btree_map::Entry::Occupied(made) => made.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => new.insert(namespace(uid, gid, identity)?),
            };
            sys::mount_setattr(mount.as_fd(), false, libc::MOUNT_ATTR_IDMAP, Some(namespace.as_fd())).or_unsupported(
                || "its file system cannot show it under the workload's id (id-mapped mount)".into(),
                "make the file readable by everybody, copy it to ext4, xfs, btrfs or (Linux 6.3 or newer) tmpfs, or run as the file's owner",
            )?;
        }
        Ok(mount)
    }
}

/// Whether the handle's file system can be id-mapped.
pub(crate) fn try_id_mapped(on: &OwnedFd) -> Result<()> {
    let mount = mounts::clone_handle(on.as_fd()).context("making a mount")?;
    let namespace = namespace(0, 0, Identity::of_caller())?;
    sys::mount_setattr(mount.as_fd(), false, libc::MOUNT_ATTR_IDMAP, Some(namespace.as_fd()))
        .context("id-mapping a mount")
}

/// A user namespace that nobody lives in: the file's owner is the workload's host id.
fn namespace(uid: u32, gid: u32, identity: Identity) -> Result<OwnedFd> {
    let fail = || "making a user namespace for id-mapped mounts".to_owned();
    let (ours, theirs) = UnixStream::pair().with_context(fail)?;
    let cloned = sys::clone_process(libc::CLONE_NEWUSER, None)
        .or_unsupported(|| format!("row \"namespaces\": {}", fail()), NAMESPACES_REMEDY)?;
    let (pid, handle) = match cloned {
        Forked::Child => {
            drop(ours);
            // Nobody speaks here: it waits until the supervisor hangs up.
            drop((&theirs).read(&mut [0]));
            sys::exit_now(0)
        }
        Forked::Parent(pid, handle) => (pid, handle),
    };
    let made = mapped(pid, uid, gid, identity);
    drop(ours);
    let options = rustix::process::WaitIdOptions::EXITED;
    _ = rustix::process::waitid(rustix::process::WaitId::PidFd(handle.as_fd()), options);
    made
}

fn mapped(pid: i32, uid: u32, gid: u32, identity: Identity) -> Result<OwnedFd> {
    let fail = || "making a user namespace for id-mapped mounts".to_owned();
    for (file, from, to) in [("uid_map", uid, identity.host_uid), ("gid_map", gid, identity.host_gid)] {
        std::fs::write(format!("/proc/{pid}/{file}"), format!("{from} {to} 1\n")).with_context(fail)?;
    }
    File::open(format!("/proc/{pid}/ns/user")).map(OwnedFd::from).with_context(fail)
}
