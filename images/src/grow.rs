//! Making things in a tree that is being unpacked. What is there already is known from the file system; no link is ever followed.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, fchmod, mkdirat, statat, unlinkat};
use rustix::io::Errno;

use crate::cursor::{Cursor, directory, split};
use crate::policy::Bounds;
use crate::record::Totals;
use crate::tree::is_whiteout;
use crate::{Error, Result, attributes};

/// The handle of the directory `path`. Archives may leave directories out.
pub(crate) fn enter<'a>(
    cursor: &'a mut Cursor,
    totals: &mut Totals,
    bounds: Bounds,
    path: &str,
) -> Result<BorrowedFd<'a>> {
    cursor.enter(path, |above, name, path| match directory(above, name) {
        Err(Errno::NOENT) => {
            make_room(totals, bounds)?;
            make_directory(above, name)
        }
        Err(Errno::NOTDIR) if is_whiteout(&look(above, name)?) => {
            replace_whiteout(above, name, totals)?;
            make_opaque_directory(above, name, totals)
        }
        Err(Errno::NOTDIR) => Err(Error::safety(format!("it lies below {path:?}, which is not a directory"))),
        other => other.map_err(made("a directory")),
    })
}

/// Makes something new. Where the layer has said that lower layers' thing of that name is gone, that is no longer needed.
pub(crate) fn make<T>(
    cursor: &mut Cursor,
    totals: &mut Totals,
    bounds: Bounds,
    path: &str,
    what: &str,
    how: impl Fn(BorrowedFd<'_>, &str) -> rustix::io::Result<T>,
) -> Result<T> {
    make_room(totals, bounds)?;
    let (parent, name) = split(path);
    let above = enter(cursor, totals, bounds, parent)?;
    match how(above, name) {
        Err(Errno::EXIST) => {
            if !is_whiteout(&look(above, name)?) {
                return Err(twice());
            }
            replace_whiteout(above, name, totals)?;
            how(above, name).map_err(made(what))
        }
        other => other.map_err(made(what)),
    }
}

pub(crate) fn make_room(totals: &mut Totals, bounds: Bounds) -> Result<()> {
    totals.entries += 1;
    if totals.entries <= bounds.entries { Ok(()) } else { Err(too_many(bounds)) }
}

pub(crate) fn too_many(bounds: Bounds) -> Error {
    Error::safety(format!("more than the {} entries allowed", bounds.entries))
}

fn make_directory(above: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    mkdirat(above, name, Mode::from_raw_mode(0o700)).map_err(made("a directory"))?;
    let made_now = directory(above, name).map_err(made("a directory"))?;
    // Whatever the umask.
    fchmod(&made_now, Mode::from_raw_mode(0o755)).map_err(made("a directory"))?;
    Ok(made_now)
}

/// A directory in the place of a whiteout hides what lower layers have in theirs.
fn make_opaque_directory(above: BorrowedFd<'_>, name: &str, totals: &mut Totals) -> Result<OwnedFd> {
    let handle = make_directory(above, name)?;
    totals.entries += 1;
    totals.removals += 1;
    attributes::make_opaque(&handle)?;
    Ok(handle)
}

fn replace_whiteout(above: BorrowedFd<'_>, name: &str, totals: &mut Totals) -> Result<()> {
    unlinkat(above, name, AtFlags::empty()).map_err(made("room for what replaces a whiteout"))?;
    totals.entries -= 1;
    totals.removals -= 1;
    Ok(())
}

pub(crate) fn look(above: BorrowedFd<'_>, name: &str) -> Result<rustix::fs::Stat> {
    statat(above, name, AtFlags::SYMLINK_NOFOLLOW).map_err(made("an entry"))
}

pub(crate) fn twice() -> Error {
    Error::safety("it is in the archive twice")
}

pub(crate) fn made<E: Into<std::io::Error>>(what: &str) -> impl FnOnce(E) -> Error {
    let doing = format!("making {what}");
    move |error| Error::from(error.into()).context(doing)
}
