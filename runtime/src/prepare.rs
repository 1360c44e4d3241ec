//! For runs by root: creates detached mounts of layers and inputs from the launcher's handles, in the host's mount namespace.
//!
//! The workload's host id owns no file. A file that not all users can read is mounted with its owner mapped to that id, which requires a
//! user namespace with this map.

use crate::failure::SystemCall as _;
use crate::identity::Identity;
use crate::protocol::Request;
use crate::sys;
use crate::user_mounts::{self, RequestMount};
use crate::{hints, hooks, mounts};
use invarlock_error::{Context as _, Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};

/// What `mount_setattr` gives where a file system has no id-mapped mounts, or does not belong to this user namespace.
const NOT_SUPPORTED: [i32; 3] = [libc::EINVAL, libc::EPERM, libc::EOPNOTSUPP];

const CREATING: &str = "creating a user namespace for id-mapped mounts";

/// The user namespaces created so far, by owner of the file.
#[derive(Default)]
struct IdMapped(BTreeMap<(u32, u32), OwnedFd>);

/// Detached, read-only mounts of layers and of inputs that are files, in the order of `fds`. Handles of other inputs are returned as they are.
pub(crate) fn mounts(request: &Request, identity: Identity, fds: Vec<OwnedFd>) -> Result<Vec<OwnedFd>> {
    let mut namespaces = IdMapped::default();
    let mut out = Vec::with_capacity(fds.len());
    let mut fds = fds.into_iter();
    for fd in fds.by_ref().take(request.rootfs.len()) {
        out.push(namespaces.layer(&fd, request, identity)?);
    }
    for (input, fd) in request.inputs.iter().zip(fds.by_ref()) {
        out.push(match &input.path {
            None => fd,
            Some(path) => namespaces
                .input(fd, identity)
                .with_context(|| format!("mounting input {}", path.display()))
                .in_control("inputs")?,
        });
    }
    for (bind, fd) in user_mounts::binds(&request.mounts).zip(fds) {
        let mount = namespaces.bind(&fd, bind, identity);
        out.push(mount.with_context(|| format!("mounting {}", bind.target)).in_control("mounts")?);
    }
    Ok(out)
}

impl IdMapped {
    /// A layer of the image. With the files of an OCI runtime its owner is mapped to the workload, as in a run started by a user: images have
    /// directories that only their owner can enter.
    fn layer(&mut self, fd: &OwnedFd, request: &Request, identity: Identity) -> Result<OwnedFd> {
        let layer = mounts::clone_handle(fd.as_fd()).context("mounting a layer of the image")?;
        mounts::restrict(&layer, mounts::layer()).context("making a layer read-only")?;
        if request.runtime_files.is_some() && can_stack_id_mapped() {
            let (uid, gid, _) = mounts::owner(fd.as_fd())?;
            // Without support of the file system, the files belong to no id of the container, and those that all users can read are readable.
            match mounts::map_ids(&layer, self.namespace(uid, gid, identity)?) {
                Err(error) if !NOT_SUPPORTED.contains(&error.raw_os_error().unwrap_or_default()) => {
                    return Err(error).context("mapping the ids of a layer of the image");
                }
                _ => {}
            }
        }
        Ok(layer)
    }

    /// The user namespace that maps an owner to the workload.
    fn namespace(&mut self, uid: u32, gid: u32, identity: Identity) -> Result<&OwnedFd> {
        Ok(match self.0.entry((uid, gid)) {
            std::collections::btree_map::Entry::Occupied(existing) => existing.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(namespace(uid, gid, identity)?),
        })
    }

    /// A bind. Its owner is mapped to the workload, as in a run started by that owner.
    fn bind(&mut self, fd: &OwnedFd, bind: &RequestMount, identity: Identity) -> Result<OwnedFd> {
        let (uid, gid, _) = mounts::owner(fd.as_fd())?;
        let mount = mounts::clone_handle(fd.as_fd()).context("cloning a mount")?;
        mounts::restrict(&mount, bind.attributes()).context("restricting the mount")?;
        if bind.device().is_some() {
            return Ok(mount);
        }
        match mounts::map_ids(&mount, self.namespace(uid, gid, identity)?) {
            // Files that all users can read are readable all the same.
            Err(error)
                if !bind.is_writable()
                    && NOT_SUPPORTED.contains(&error.raw_os_error().unwrap_or_default()) => {}
            other => other.or_unsupported(
                || "its file system does not support id-mapped mounts, without which the container cannot write it".into(),
                OTHER_FILE_SYSTEM,
            )?,
        }
        Ok(mount)
    }

    fn input(&mut self, fd: OwnedFd, identity: Identity) -> Result<OwnedFd> {
        let (uid, gid, world_readable) = mounts::owner(fd.as_fd())?;
        let mount = match mounts::clone_handle(fd.as_fd()) {
            Err(rustix::io::Errno::NOENT) => {
                return Err(Error::safety("the file was removed or replaced after it was checked"));
            }
            other => other.context("cloning a mount")?,
        };
        mounts::restrict(&mount, mounts::input()).context("making the mount read-only")?;
        if !world_readable {
            mounts::map_ids(&mount, self.namespace(uid, gid, identity)?).or_unsupported(
                || "its file system does not support id-mapped mounts".into(),
                "make the file readable by everybody, copy it to ext4, xfs, btrfs or (Linux 6.3 or newer) tmpfs, or run as the file's owner",
            )?;
        }
        Ok(mount)
    }
}

/// The advice where a file system has no id-mapped mounts.
const OTHER_FILE_SYSTEM: &str = "move it to ext4, xfs, btrfs or (Linux 6.3 or newer) tmpfs, mount it read-only, or run as the owner of the files";

/// Whether id-mapped layers can be stacked: from Linux 5.19 on.
fn can_stack_id_mapped() -> bool {
    let names = rustix::system::uname();
    let release = names.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(19))
}

/// Tries an id-mapped mount on the file system of a handle.
pub(crate) fn try_id_mapped(on: &OwnedFd) -> Result<()> {
    let mount = mounts::clone_handle(on.as_fd()).context("cloning a mount")?;
    let namespace = namespace(0, 0, Identity::of_own_run())?;
    mounts::map_ids(&mount, &namespace).context("id-mapping a mount")
}

/// A user namespace without processes that maps the owner of a file to the workload's host id.
fn namespace(uid: u32, gid: u32, identity: Identity) -> Result<OwnedFd> {
    let made = |pid| {
        hooks::step("supervisor: namespace of mounts made");
        mapped(pid, uid, gid, identity)
    };
    sys::with_user_namespace(made)
        .or_unsupported(|| CREATING.into(), hints::NAMESPACES)
        .in_control("namespaces")?
}

fn mapped(pid: i32, uid: u32, gid: u32, identity: Identity) -> Result<OwnedFd> {
    for (file, from, to) in [("uid_map", uid, identity.host_uid), ("gid_map", gid, identity.host_gid)] {
        std::fs::write(format!("/proc/{pid}/{file}"), format!("{from} {to} 1\n")).context(CREATING)?;
    }
    File::open(format!("/proc/{pid}/ns/user")).map(OwnedFd::from).context(CREATING)
}
