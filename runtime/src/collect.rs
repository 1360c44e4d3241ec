//! Collects the files of `/out` through its handle, after every process that could write is dead. Their names and content are untrusted.

use crate::hooks::off;
use crate::spec::Limits;
use invarlock_error::{Context as _, Error, Result};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use std::os::fd::{AsFd as _, OwnedFd};

/// Deepest nesting of directories.
const MAX_DEPTH: usize = 8;

/// One file: its name, its size and a read-only handle.
pub(crate) struct Collected {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) file: OwnedFd,
}

/// Collects regular files within the limits. Any other entry is an error that names it.
pub(crate) fn collect(out: &OwnedFd, limits: &Limits) -> Result<Vec<Collected>> {
    let mut files = Vec::new();
    let mut remaining = limits.output_bytes;
    walk(out, out, "", 0, limits, &mut remaining, &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn walk(
    out: &OwnedFd,
    directory: &OwnedFd,
    prefix: &str,
    depth: usize,
    limits: &Limits,
    remaining: &mut u64,
    files: &mut Vec<Collected>,
) -> Result<()> {
    let doing = || format!("reading /out/{prefix}");
    for entry in Dir::read_from(directory).with_context(doing)? {
        let entry = entry.with_context(doing)?;
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        let unsafe_ = |what: &str| {
            let name = String::from_utf8_lossy(bytes);
            Err(Error::safety(format!(
                "/out/{prefix}{} {what}; no file of the output is used",
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
        // NONBLOCK: opening a fifo must not block. The file type is checked before a read.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat2(out, &path, flags, Mode::empty(), resolve) {
            Ok(file) => file,
            Err(_) if off("output regular files") => continue,
            Err(rustix::io::Errno::LOOP) => return unsafe_("is a symbolic link"),
            Err(e) => return unsafe_(&format!("cannot be opened ({e})")),
        };
        let stat = rustix::fs::fstat(file.as_fd()).with_context(doing)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_nlink != 1 => return unsafe_("has several hard links"),
            FileType::RegularFile => {
                let size = stat.st_size.unsigned_abs();
                let Some(rest) = remaining.checked_sub(size) else {
                    return unsafe_("exceeds the size limit of the output");
                };
                *remaining = rest;
                if files.len() as u64 == limits.output_files {
                    return unsafe_("exceeds the limit of output files");
                }
                files.push(Collected { name: path, size, file });
            }
            FileType::Directory if depth == MAX_DEPTH => return unsafe_("is nested too deeply"),
            FileType::Directory => {
                walk(out, &file, &format!("{path}/"), depth + 1, limits, remaining, files)?
            }
            _ if off("output regular files") => {}
            other => return unsafe_(&format!("is not a regular file but a {other:?}")),
        }
    }
    Ok(())
}
