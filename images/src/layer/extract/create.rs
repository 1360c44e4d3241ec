//! Creation of entries in a layer that is being extracted. What exists already is read from the file system; no link is ever followed.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, Stat, fchmod, mkdirat, statat, unlinkat};
use rustix::io::Errno;

use crate::layer::cursor::{Cursor, directory, split};
use crate::layer::entry::Totals;
use crate::layer::inspect::is_whiteout;
use crate::layer::limits::Limits;
use crate::layer::xattr;
use crate::{Error, Result};

/// The handle of the directory `path`. Directories that the archive omits are created.
pub(super) fn enter<'a>(
    cursor: &'a mut Cursor,
    totals: &mut Totals,
    limits: Limits,
    path: &str,
) -> Result<BorrowedFd<'a>> {
    cursor.enter(path, |parent, name, path| match directory(parent, name) {
        Err(Errno::NOENT) => {
            count_entry(totals, limits)?;
            create_directory(parent, name)
        }
        Err(Errno::NOTDIR) if is_whiteout(&stat(parent, name)?) => {
            remove_whiteout(parent, name, totals)?;
            create_opaque_directory(parent, name, totals)
        }
        Err(Errno::NOTDIR) => Err(Error::safety(format!("its parent {path:?} is not a directory"))),
        other => other.map_err(creating("a directory")),
    })
}

/// Creates an entry with `create`. It replaces a whiteout of the same archive, which is then unnecessary.
pub(super) fn create_entry<T>(
    cursor: &mut Cursor,
    totals: &mut Totals,
    limits: Limits,
    path: &str,
    what: &str,
    create: impl Fn(BorrowedFd<'_>, &str) -> rustix::io::Result<T>,
) -> Result<T> {
    count_entry(totals, limits)?;
    let (parent, name) = split(path);
    let parent = enter(cursor, totals, limits, parent)?;
    match create(parent, name) {
        Err(Errno::EXIST) => {
            if !is_whiteout(&stat(parent, name)?) {
                return Err(duplicate());
            }
            remove_whiteout(parent, name, totals)?;
            create(parent, name).map_err(creating(what))
        }
        other => other.map_err(creating(what)),
    }
}

/// Counts an entry that is about to be created.
pub(super) fn count_entry(totals: &mut Totals, limits: Limits) -> Result<()> {
    totals.entries += 1;
    if totals.entries <= limits.entries { Ok(()) } else { Err(too_many_entries(limits)) }
}

pub(super) fn too_many_entries(limits: Limits) -> Error {
    Error::safety(format!("more than the {} entries allowed", limits.entries))
}

fn create_directory(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    mkdirat(parent, name, Mode::from_raw_mode(0o700)).map_err(creating("a directory"))?;
    let created = directory(parent, name).map_err(creating("a directory"))?;
    // The umask must not matter.
    fchmod(&created, Mode::from_raw_mode(0o755)).map_err(creating("a directory"))?;
    Ok(created)
}

/// A directory that replaces a whiteout hides the contents of lower layers.
fn create_opaque_directory(parent: BorrowedFd<'_>, name: &str, totals: &mut Totals) -> Result<OwnedFd> {
    let created = create_directory(parent, name)?;
    totals.entries += 1;
    totals.removals += 1;
    xattr::make_opaque(&created)?;
    Ok(created)
}

fn remove_whiteout(parent: BorrowedFd<'_>, name: &str, totals: &mut Totals) -> Result<()> {
    unlinkat(parent, name, AtFlags::empty()).map_err(creating("an entry in place of a whiteout"))?;
    totals.entries -= 1;
    totals.removals -= 1;
    Ok(())
}

pub(super) fn stat(parent: BorrowedFd<'_>, name: &str) -> Result<Stat> {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(creating("an entry"))
}

pub(super) fn duplicate() -> Error {
    Error::safety("it occurs twice in the archive")
}

/// The error for a failed system call during the creation of `what`.
pub(super) fn creating<E: Into<std::io::Error>>(what: &str) -> impl FnOnce(E) -> Error {
    let context = format!("creating {what}");
    move |error| Error::from(error.into()).context(context)
}
