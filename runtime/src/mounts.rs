//! Mounts as handles: made detached, given their attributes, and only then put somewhere.

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

/// `nosuid,nodev,noexec`: what the workload may write.
pub(crate) fn scratch() -> u64 {
    unless(off("scratch nosuid"), NOSUID)
        | unless(off("scratch nodev"), NODEV)
        | unless(off("scratch noexec"), NOEXEC)
}

fn unless(off: bool, attribute: u64) -> u64 {
    if off { 0 } else { attribute }
}

const NOT_THROUGH_LINKS: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

/// A detached copy of what the handle is on.
pub(crate) fn clone_handle(of: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(of, "", flags)
}

/// A detached copy of what the path is on, with what is mounted below it.
pub(crate) fn clone_path(path: &str, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(CWD, path, flags)
}

/// The file that `handle` is, opened again by its path in this mount namespace: an error where that is another file by now.
pub(crate) fn reopen(path: &Path, handle: BorrowedFd<'_>) -> Result<OwnedFd> {
    let fail = || format!("opening {} again", path.display());
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let again = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .with_context(fail)?;
    let (a, b) =
        (rustix::fs::fstat(&again).with_context(fail)?, rustix::fs::fstat(handle).with_context(fail)?);
    if (a.st_dev, a.st_ino) != (b.st_dev, b.st_ino) {
        return Err(Error::safety(format!(
            "{} was replaced by another file after it was checked",
            path.display()
        )));
    }
    Ok(again)
}

/// Gives a detached mount attributes for good.
pub(crate) fn restrict(mount: &OwnedFd, attributes: u64) -> std::io::Result<()> {
    sys::mount_setattr(mount.as_fd(), false, attributes, None)
}

/// A new tmpfs, detached.
pub(crate) fn tmpfs(options: &[(&str, String)], attributes: u64) -> Result<OwnedFd> {
    filesystem("tmpfs", options, attributes)
}

/// A new file system of this type, detached.
pub(crate) fn filesystem(kind: &str, options: &[(&str, String)], attributes: u64) -> Result<OwnedFd> {
    let fail = || format!("making a {kind}");
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).with_context(fail)?;
    rustix::mount::fsconfig_set_string(&context, "source", kind).with_context(fail)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, value.as_str())
            .with_context(|| format!("making a {kind} with {key}={value}"))?;
    }
    rustix::mount::fsconfig_create(&context).with_context(fail)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).with_context(fail)
}

/// Puts a detached mount on what `target` is.
pub(crate) fn attach(mount: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

/// Puts a detached mount on a path of our own making.
pub(crate) fn attach_at(mount: &OwnedFd, path: &str) -> rustix::io::Result<()> {
    rustix::mount::move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// A directory directly below `root`, which must be a real one. None where there is nothing of that name.
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
        // Where the call is missing, nothing is known of the image.
        Err(e @ rustix::io::Errno::NOSYS) => Err(e).with_context(|| format!("opening /{name} of the image")),
        Err(e) => Err(Error::safety(format!(
            "/{name} of the image is not a plain directory ({e}): an image must not redirect what is mounted into it"
        ))),
    }
}

/// A file below a directory of ours, made with its parents.
pub(crate) fn make_file(root: &OwnedFd, components: &[&str]) -> Result<File> {
    let fail = || format!("making /in/{}", components.join("/"));
    let Some((name, parents)) = components.split_last() else {
        return Err(Error::input("an input without a name"));
    };
    let mut at = rustix::io::fcntl_dupfd_cloexec(root, 3).with_context(fail)?;
    for parent in parents {
        match rustix::fs::mkdirat(&at, *parent, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(Error::system(format!("{}: {e}", fail()))),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = rustix::fs::openat(&at, *parent, flags, Mode::empty()).with_context(fail)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&at, *name, flags, Mode::from_raw_mode(0o444)).map(File::from).with_context(fail)
}

/// Owner, and whether everybody may read it.
pub(crate) fn owner(file: BorrowedFd<'_>) -> Result<(u32, u32, bool)> {
    let file = File::from(file.try_clone_to_owned().context("duplicating a handle")?);
    let meta = file.metadata().context("looking at an input")?;
    Ok((meta.uid(), meta.gid(), meta.mode() & 0o004 != 0))
}
