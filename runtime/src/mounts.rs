//! Mounts as handles: created detached, restricted, and only then attached.

use crate::hooks::off;
use crate::sys;
use invarlock_error::{Context as _, Error, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// `ro,nosuid,nodev`: a layer of an image.
pub(crate) fn layer() -> u64 {
    unless(off("root read-only"), RDONLY)
        | unless(off("root nosuid"), NOSUID)
        | unless(off("root nodev"), NODEV)
}

/// `ro,nosuid,nodev,noexec`: an input.
pub(crate) fn input() -> u64 {
    unless(off("inputs read-only"), RDONLY)
        | unless(off("inputs nosuid"), NOSUID)
        | unless(off("inputs nodev"), NODEV)
        | unless(off("inputs noexec"), NOEXEC)
}

/// `ro,nosuid,nodev,noexec`: `/sys`.
pub(crate) fn system() -> u64 {
    unless(off("/sys read-only"), RDONLY) | NOSUID | NODEV | NOEXEC
}

/// `nosuid,nodev,noexec`: a directory that the workload can write.
pub(crate) fn scratch() -> u64 {
    unless(off("scratch nosuid"), NOSUID)
        | unless(off("scratch nodev"), NODEV)
        | unless(off("scratch noexec"), NOEXEC)
}

fn unless(off: bool, attribute: u64) -> u64 {
    if off { 0 } else { attribute }
}

const NOT_THROUGH_LINKS: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

/// A detached clone of the mount at a handle.
pub(crate) fn clone_handle(of: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(of, "", flags)
}

/// A detached clone of the mount at a path; `recursive` includes the mounts below it.
pub(crate) fn clone_path(path: &str, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(CWD, path, flags)
}

/// Opens the file of `handle` again, by its path, in this mount namespace. An error if the path now names another file.
pub(crate) fn reopen(path: &Path, handle: BorrowedFd<'_>) -> Result<OwnedFd> {
    let doing = || format!("opening {} again", path.display());
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let again = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .with_context(doing)?;
    let (a, b) =
        (rustix::fs::fstat(&again).with_context(doing)?, rustix::fs::fstat(handle).with_context(doing)?);
    if (a.st_dev, a.st_ino) != (b.st_dev, b.st_ino) {
        return Err(Error::safety(format!(
            "{} was replaced by another file after it was checked",
            path.display()
        )));
    }
    Ok(again)
}

/// Sets attributes of a mount permanently, and makes it private: a clone of a mount of the host is in the peer group of that mount,
/// so mounts below either would propagate to the other.
pub(crate) fn restrict(mount: &OwnedFd, attributes: u64) -> std::io::Result<()> {
    sys::mount_setattr(mount.as_fd(), false, attributes, propagation(), None)
}

/// The same for a mount and all mounts below it.
pub(crate) fn restrict_recursively(mount: &OwnedFd, attributes: u64) -> std::io::Result<()> {
    sys::mount_setattr(mount.as_fd(), true, attributes, propagation(), None)
}

/// Maps the ids of a detached mount by a user namespace.
pub(crate) fn map_ids(mount: &OwnedFd, namespace: &OwnedFd) -> std::io::Result<()> {
    let attributes = libc::MOUNT_ATTR_IDMAP;
    sys::mount_setattr(mount.as_fd(), false, attributes, propagation(), Some(namespace.as_fd()))
}

fn propagation() -> u64 {
    if off("private mounts") { libc::MS_SLAVE } else { libc::MS_PRIVATE }
}

/// A new tmpfs, detached.
pub(crate) fn tmpfs(options: &[(&str, String)], attributes: u64) -> Result<OwnedFd> {
    filesystem("tmpfs", options, attributes)
}

/// A new file system of a type, detached.
pub(crate) fn filesystem(kind: &str, options: &[(&str, String)], attributes: u64) -> Result<OwnedFd> {
    let doing = || format!("creating a {kind}");
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).with_context(doing)?;
    rustix::mount::fsconfig_set_string(&context, "source", kind).with_context(doing)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, value.as_str())
            .with_context(|| format!("creating a {kind} with {key}={value}"))?;
    }
    rustix::mount::fsconfig_create(&context).with_context(doing)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).with_context(doing)
}

/// Attaches a detached mount at a handle.
pub(crate) fn attach(mount: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

/// Attaches a detached mount at a path that this program created.
pub(crate) fn attach_at(mount: &OwnedFd, path: &str) -> rustix::io::Result<()> {
    rustix::mount::move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// A directory below `root`, if its path leads through no link or mount point.
pub(crate) fn plain_directory(root: &OwnedFd, path: &str) -> Result<Option<OwnedFd>> {
    match real_directory(root, path) {
        Err(error) if error.kind() == invarlock_error::Kind::Safety => Ok(None),
        other => other,
    }
}

/// A directory directly below `root`, which must not be a link or mount point. None if the name does not exist.
pub(crate) fn real_directory(root: &OwnedFd, name: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(
        root,
        name,
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | NOT_THROUGH_LINKS,
    ) {
        Ok(directory) => Ok(Some(directory)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        // Without the call nothing is known about the image.
        Err(e @ rustix::io::Errno::NOSYS) => Err(e).with_context(|| format!("opening /{name} of the image")),
        Err(e) => Err(Error::safety(format!(
            "/{name} of the image is not a plain directory ({e}): an image must not redirect mounts"
        ))),
    }
}

/// Creates a file and its parents below a directory that this program created.
pub(crate) fn create_file(root: &OwnedFd, components: &[&str]) -> Result<File> {
    let doing = || format!("creating /in/{}", components.join("/"));
    let Some((name, parents)) = components.split_last() else {
        return Err(Error::input("an input has no name"));
    };
    let mut at = rustix::io::fcntl_dupfd_cloexec(root, 3).with_context(doing)?;
    for parent in parents {
        match rustix::fs::mkdirat(&at, *parent, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e).with_context(doing),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = rustix::fs::openat(&at, *parent, flags, Mode::empty()).with_context(doing)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&at, *name, flags, Mode::from_raw_mode(0o444)).map(File::from).with_context(doing)
}

/// The owner of a file, and whether all users can read it.
pub(crate) fn owner(file: BorrowedFd<'_>) -> Result<(u32, u32, bool)> {
    let file = File::from(file.try_clone_to_owned().context("duplicating a handle")?);
    let meta = file.metadata().context("reading the attributes of an input")?;
    Ok((meta.uid(), meta.gid(), meta.mode() & 0o004 != 0))
}
