//! Whether somebody else could have changed what a path names.

use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Stat, statat};
use rustix::io::Errno;

use crate::{Error, Result, group};

/// Who is asked for, and what holds for him.
fn trusted(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}

/// Checks that nobody but root and the caller can change what stands at `path` or on the way to it.
///
/// Every component, from the root on, is looked at itself, and none may be a symbolic link. It must belong to root or to the
/// caller, and must not be writable by others, nor by a group that is not its owner's alone (a umask of 0002 lets the private group
/// of a user write); a sticky directory may be, since in it nobody can replace what is not his own. The last component gets no such
/// exception: where others may add files is no place for ours.
///
/// This speaks about a moment. It is worth something because only root and the caller can change its answer.
pub fn is_secure_path(path: &Path) -> Result<()> {
    walk(path, Last::Strict).map(drop)
}

/// The same for a directory in which a private one will be made: it may itself be sticky, as `/tmp` is.
pub(crate) fn is_secure_base(path: &Path) -> Result<()> {
    let stat = walk(path, Last::MayBeSticky)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(insecure(path, path, "is not a directory"));
    }
    Ok(())
}

/// Checks that `path` is a program that only root or the caller can have written: [`is_secure_path`], a regular file, and
/// executable.
pub fn secure_executable(path: &Path) -> Result<()> {
    let stat = walk(path, Last::Strict)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(insecure(path, path, "is not a regular file"));
    }
    if stat.st_mode & 0o111 == 0 {
        return Err(insecure(path, path, "is not executable"));
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Last {
    Strict,
    MayBeSticky,
}

fn walk(path: &Path, last: Last) -> Result<Stat> {
    let whole = std::path::absolute(path).map_err(|source| Error::io("resolving", path, source))?;
    let mut at = PathBuf::new();
    let mut stat = None;
    let mut parts = whole.components().peekable();
    while let Some(part) = parts.next() {
        // `absolute` leaves `..` in; what it would lead out of has been looked at already, but plain is better than clever.
        if part == Component::ParentDir {
            return Err(insecure(&whole, &at, "is followed by '..'"));
        }
        at.push(part);
        let seen = statat(CWD, &at, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|source| Error::io("looking at", &at, source))?;
        let is_last = parts.peek().is_none();
        check(&at, &seen, is_last, last).map_err(|why| insecure(&whole, &at, why))?;
        stat = Some(seen);
    }
    stat.ok_or_else(|| insecure(path, path, "is empty"))
}

fn check(at: &Path, stat: &Stat, is_last: bool, last: Last) -> std::result::Result<(), String> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink {
        return Err("is a symbolic link".to_owned());
    }
    if !is_last && kind != FileType::Directory {
        return Err("is not a directory".to_owned());
    }
    if !trusted(stat.st_uid) {
        return Err(format!("belongs to uid {}, who is neither root nor the caller", stat.st_uid));
    }
    let sticky =
        kind == FileType::Directory && stat.st_mode & 0o1000 != 0 && (!is_last || last == Last::MayBeSticky);
    if sticky {
        return Ok(());
    }
    let mode = stat.st_mode & 0o7777;
    if stat.st_mode & 0o002 != 0 {
        return Err(format!("is writable by others (mode {mode:o}; remedy: chmod go-w {})", at.display()));
    }
    if stat.st_mode & 0o020 != 0 {
        no_acl(at).and_then(|()| group::is_private(stat.st_uid, stat.st_gid)).map_err(|why| {
            format!("is writable by its group (mode {mode:o}; remedy: chmod g-w {}): {why}", at.display())
        })?;
    }
    Ok(())
}

/// The group bits of a file with an access list speak for everybody in that list.
fn no_acl(at: &Path) -> std::result::Result<(), String> {
    match rustix::fs::lgetxattr(at, "system.posix_acl_access", &mut [0_u8; 0]) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Ok(_) => Err("it has an access list".to_owned()),
        Err(error) => Err(format!("whether it has an access list cannot be told ({error})")),
    }
}

fn insecure(path: &Path, part: &Path, why: impl Into<String>) -> Error {
    let remedy =
        "every part of the path must be a real directory or file of root or yours that nobody else can write";
    Error::Safety(format!(
        "{} is not safe to use: {} {}; {remedy}",
        path.display(),
        part.display(),
        why.into()
    ))
}
