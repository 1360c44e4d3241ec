//! The files of `/out`, read through its handle when every process that could write is dead.

use crate::hooks::off;
use crate::spec::Limits;
use invarlock_error::{Context as _, Error, Result};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use std::os::fd::{AsFd as _, OwnedFd};

/// Directories in directories that are followed.
const MAX_DEPTH: usize = 8;

/// One file: its name, size, and a handle that only reads.
pub(crate) struct Collected {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) file: OwnedFd,
}

/// Regular files only, within the limits; anything else is an error that names it.
pub(crate) fn collect(out: &OwnedFd, limits: &Limits) -> Result<Vec<Collected>> {
    let mut files = Vec::new();
    let mut room = limits.output_bytes;
    walk(out, out, "", 0, limits, &mut room, &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn walk(
    out: &OwnedFd,
    directory: &OwnedFd,
    prefix: &str,
    depth: usize,
    limits: &Limits,
    room: &mut u64,
    files: &mut Vec<Collected>,
) -> Result<()> {
    let fail = || format!("reading /out/{prefix}");
    for entry in Dir::read_from(directory).with_context(fail)? {
        let entry = entry.with_context(fail)?;
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        let unsafe_ = |what: &str| {
            let name = String::from_utf8_lossy(bytes);
            Err(Error::safety(format!(
                "/out/{prefix}{} {what}; nothing of the output is used",
                name.escape_debug()
            )))
        };
        let Ok(name) = std::str::from_utf8(bytes) else { return unsafe_("has a name that is not UTF-8") };
        if name.chars().any(char::is_control) {
            return unsafe_("has a control character in its name");
        }
        let path = format!("{prefix}{name}");
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        // NONBLOCK: a fifo must not stop us; what is opened is looked at before it is read.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat2(out, &path, flags, Mode::empty(), resolve) {
            Ok(file) => file,
            Err(_) if off("output regular files") => continue,
            Err(rustix::io::Errno::LOOP) => return unsafe_("is a symbolic link"),
            Err(e) => return unsafe_(&format!("cannot be opened ({e})")),
        };
        let stat = rustix::fs::fstat(file.as_fd()).with_context(fail)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_nlink != 1 => return unsafe_("has several names"),
            FileType::RegularFile => {
                let size = stat.st_size.unsigned_abs();
                let Some(rest) = room.checked_sub(size) else {
                    return unsafe_("makes the output larger than its limit");
                };
                *room = rest;
                if files.len() as u64 == limits.output_files {
                    return unsafe_("is one file more than the limit");
                }
                files.push(Collected { name: path, size, file });
            }
            FileType::Directory if depth == MAX_DEPTH => return unsafe_("lies too deep"),
            FileType::Directory => walk(out, &file, &format!("{path}/"), depth + 1, limits, room, files)?,
            _ if off("output regular files") => {}
            other => return unsafe_(&format!("is not a regular file but a {other:?}")),
        }
    }
    Ok(())
}
