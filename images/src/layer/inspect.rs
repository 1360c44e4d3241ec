//! Reading an extracted layer by directory handles, as extraction, verification and builds do.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use super::cursor::directory;
use crate::tar::MAX_DEPTH;
use crate::{Error, Result};

/// The error for an entry that is not as it was extracted.
pub(crate) fn altered(path: &str, what: &str) -> Error {
    Error::integrity(format!("extracted file /{path} {what}: the extracted layer was altered or is corrupt"))
}

/// The error for a failed system call on an entry.
pub(crate) fn inspect_error(path: &str) -> impl FnOnce(Errno) -> Error {
    let context = format!("reading extracted file /{path}");
    move |error| Error::from(error).context(context)
}

/// Opens a directory of which the record has a line.
pub(crate) fn known_directory(above: BorrowedFd<'_>, name: &str, path: &str) -> Result<OwnedFd> {
    directory(above, name).map_err(|error| match error {
        Errno::NOENT => altered(path, "is missing"),
        Errno::NOTDIR => altered(path, "is no longer a directory"),
        error => inspect_error(path)(error),
    })
}

/// Opens a file of which the record has a line.
pub(crate) fn open_known(above: BorrowedFd<'_>, path: &str, name: &str, flags: OFlags) -> Result<OwnedFd> {
    // NONBLOCK: opening a fifo in its place must not block.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(above, name, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => altered(path, "is missing"),
        Errno::LOOP | Errno::NXIO | Errno::NODEV => altered(path, "is no longer a file"),
        error => inspect_error(path)(error),
    })
}

/// The metadata of an entry of which the record has a line.
pub(crate) fn stat_known(above: BorrowedFd<'_>, path: &str, name: &str) -> Result<Stat> {
    debug_assert!(!name.is_empty() || path.is_empty(), "only the root has no name");
    let name = if name.is_empty() { "." } else { name };
    statat(above, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| match error {
        Errno::NOENT => altered(path, "is missing"),
        error => inspect_error(path)(error),
    })
}

/// The type of a file.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The permission bits of a mode.
pub(crate) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// Whether it is a whiteout as overlayfs represents it: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Calls `visit` for every entry below `dir` with its parent, path, name and type; a directory precedes its contents.
pub(crate) fn walk(
    dir: BorrowedFd<'_>,
    path: &str,
    depth: usize,
    visit: &mut impl FnMut(BorrowedFd<'_>, &str, &str, FileType) -> Result<()>,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(altered(path, "is deeper than an image can be"));
    }
    for entry in rustix::fs::Dir::read_from(dir).map_err(inspect_error(path))? {
        let entry = entry.map_err(inspect_error(path))?;
        let Ok(name) = entry.file_name().to_str() else {
            return Err(altered(path, "contains a name that is not of the image"));
        };
        if matches!(name, "." | "..") {
            continue;
        }
        let child = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        let kind = match entry.file_type() {
            FileType::Unknown => file_type(&stat_known(dir, &child, name)?),
            known => known,
        };
        visit(dir, &child, name, kind)?;
        if kind == FileType::Directory {
            let inner = known_directory(dir, name, &child)?;
            walk(inner.as_fd(), &child, depth + 1, visit)?;
        }
    }
    Ok(())
}
