//! Checks that no other user can change what a path names.

use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Stat, statat};
use rustix::io::Errno;

use crate::{Error, Result, group};
use invarlock_error::Context as _;

/// Whether the owner of a file is trusted: root or the caller.
fn trusted(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}

/// Checks that only root and the caller can change `path` and the directories above it.
///
/// Every component is examined, starting at `/`; none may be a symbolic link. Each must belong to root or to the caller. None may be
/// writable by others, nor by a group that has other members than its owner (a umask of 0002 lets the private group of a user
/// write). A directory above may be writable if it is sticky, because there a user can replace only files of its own. The last
/// component must not be writable even if it is sticky.
///
/// The result is about one moment, but only root and the caller can change it.
pub fn is_secure_path(path: &Path) -> Result<()> {
    walk(path, Last::Strict).map(drop)
}

/// The same for the parent of a new private directory: it may be sticky itself, as `/tmp` is.
pub(crate) fn is_secure_base(path: &Path) -> Result<()> {
    let stat = walk(path, Last::MayBeSticky)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Insecure::because("is not a directory").error(path, path));
    }
    Ok(())
}

/// Checks that `path` is a program that only root or the caller can have written: [`is_secure_path`], a regular file, executable.
pub fn secure_executable(path: &Path) -> Result<()> {
    let stat = walk(path, Last::Strict)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Insecure::because("is not a regular file").error(path, path));
    }
    if stat.st_mode & 0o111 == 0 {
        return Err(Insecure::because("is not executable").error(path, path));
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Last {
    Strict,
    MayBeSticky,
}

fn walk(path: &Path, last: Last) -> Result<Stat> {
    let whole = std::path::absolute(path).with_context(|| format!("resolving {}", path.display()))?;
    let mut at = PathBuf::new();
    let mut stat = None;
    let mut parts = whole.components().peekable();
    while let Some(part) = parts.next() {
        // `absolute` keeps `..`. It is refused, because it is not worth resolving.
        if part == Component::ParentDir {
            return Err(Insecure::because("is followed by '..'").error(&whole, &at));
        }
        at.push(part);
        let seen = statat(CWD, &at, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("examining {}", at.display()))
            .input_if_not_found()?;
        let is_last = parts.peek().is_none();
        check(&at, &seen, is_last, last).map_err(|why| why.error(&whole, &at))?;
        stat = Some(seen);
    }
    stat.ok_or_else(|| Insecure::because("is empty").error(path, path))
}

/// Why a component of a path is insecure, and what the user can do.
struct Insecure {
    why: String,
    hint: String,
}

impl Insecure {
    fn because(why: impl Into<String>) -> Self {
        let hint = "every component must be a real directory or file, owned by root or by you, that no other user can write";
        Self { why: why.into(), hint: hint.to_owned() }
    }

    fn error(self, path: &Path, part: &Path) -> Error {
        Error::safety(format!("{} is not safe to use: {} {}", path.display(), part.display(), self.why))
            .with_hint(self.hint)
    }
}

fn check(at: &Path, stat: &Stat, is_last: bool, last: Last) -> std::result::Result<(), Insecure> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink {
        return Err(Insecure::because("is a symbolic link"));
    }
    if !is_last && kind != FileType::Directory {
        return Err(Insecure::because("is not a directory"));
    }
    if !trusted(stat.st_uid) {
        let why = format!("belongs to uid {}, which is neither root nor the caller", stat.st_uid);
        return Err(Insecure::because(why));
    }
    let sticky =
        kind == FileType::Directory && stat.st_mode & 0o1000 != 0 && (!is_last || last == Last::MayBeSticky);
    if sticky {
        return Ok(());
    }
    let mode = stat.st_mode & 0o7777;
    if stat.st_mode & 0o002 != 0 {
        return Err(Insecure {
            why: format!("is writable by others (mode {mode:o})"),
            hint: format!("run `chmod go-w {}`", at.display()),
        });
    }
    if stat.st_mode & 0o020 != 0 {
        no_acl(at).and_then(|()| group::is_private(stat.st_uid, stat.st_gid)).map_err(|why| Insecure {
            why: format!("is writable by its group (mode {mode:o}): {why}"),
            hint: format!("run `chmod g-w {}`", at.display()),
        })?;
    }
    Ok(())
}

/// The group bits of a file with an access control list apply to every entry of that list.
fn no_acl(at: &Path) -> std::result::Result<(), String> {
    match rustix::fs::lgetxattr(at, "system.posix_acl_access", &mut [0_u8; 0]) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Ok(_) => Err("it has an access control list".to_owned()),
        Err(error) => Err(format!("cannot read its access control list ({error})")),
    }
}
