//! Full verification of an extracted layer against its record: every name, mode, link, attribute and byte.

use invarlock_error::Context as _;
use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat, fchmod, readlinkat};
use rustix::io::Errno;

use super::record::{self, Seal};
use crate::layer::cursor::{Cursor, directory, split};
use crate::layer::entry::Line;
use crate::layer::inspect::{
    altered, file_type, inspect_error, is_whiteout, known_directory, open_known, permissions, stat_known,
    walk,
};
use crate::layer::xattr;
use crate::oci::{Digest, Hashing};
use crate::parallel::{WorkerPool, join_with};
use crate::{Error, Result};

/// The bit of a mode that allows the owner to write.
pub(super) const OWNER_WRITE: u32 = 0o200;
/// Bytes of a record up to which one thread verifies it: starting others would take longer.
const SMALL_RECORD: u64 = 16 << 10;
/// Lines that a thread receives at once.
const BATCH: usize = 64;
/// Compares the extracted layer in `root` with its record.
pub(crate) fn verify(root: &(impl AsFd + Sync), record: &File, seal: &Seal) -> Result<()> {
    // The number of entries shows whether there are any besides those of the record. `root` can be an `O_PATH` handle.
    let top = directory(root.as_fd(), ".").map_err(inspect_error(""))?;
    let start = || Checker::new(root);
    let length = record.metadata().context("reading the metadata of a record")?.len();
    let found = if length <= SMALL_RECORD {
        let mut checker = start()?;
        record::read(record, seal, |line| checker.check(&line))?;
        count(top.as_fd(), "", 0)?
    } else {
        let pool = WorkerPool {
            batch: BATCH,
            start,
            work: |checker: &mut Checker, line: Line| checker.check(&line),
        };
        let (found, checked) =
            join_with(|| count(top.as_fd(), "", 0), || pool.run(|send| record::read(record, seal, send)))?;
        checked?;
        found?
    };
    check_count(found, top.as_fd(), record, seal)
}

/// Checks that there are no other entries than those of the record, all of which were compared.
pub(super) fn check_complete(root: &impl AsFd, record: &File, seal: &Seal) -> Result<()> {
    let top = directory(root.as_fd(), ".").map_err(inspect_error(""))?;
    check_count(count(top.as_fd(), "", 0)?, top.as_fd(), record, seal)
}

/// Checks the number of entries.
fn check_count(found: u64, top: BorrowedFd<'_>, record: &File, seal: &Seal) -> Result<()> {
    match found == seal.totals.entries {
        true => Ok(()),
        false => Err(unknown_entry(top, record, seal)?),
    }
}

/// Compares entries with lines of the record, in one thread.
pub(super) struct Checker {
    cursor: Cursor,
    link_targets: Cursor,
    buffer: Vec<u8>,
}

impl Checker {
    pub fn new(root: &impl AsFd) -> Result<Self> {
        let cursor = || Cursor::new(root).map_err(inspect_error(""));
        Ok(Self { cursor: cursor()?, link_targets: cursor()?, buffer: vec![0; 256 << 10] })
    }

    fn check(&mut self, line: &Line) -> Result<()> {
        self.check_with(line, |file, path, buffer| match line {
            Line::File { size, sha256, .. } => Ok(hash(file, path, *size, buffer)? == *sha256),
            _ => Ok(false),
        })
    }

    /// Compares an entry; `is_content` decides whether the content of a file is right.
    pub fn check_with(
        &mut self,
        line: &Line,
        is_content: impl FnOnce(OwnedFd, &str, &mut [u8]) -> Result<bool>,
    ) -> Result<()> {
        let path = line.path();
        let (parent, name) = split(path);
        let parent = self.cursor.enter(parent, known_directory)?;
        let same = match line {
            Line::File { mode, size, attributes, .. } => {
                let file = open_known(parent, path, name, OFlags::RDONLY)?;
                let stat = rustix::fs::fstat(&file).map_err(inspect_error(path))?;
                file_type(&stat) == FileType::RegularFile
                    && (permissions(&stat) == *mode || remove_owner_write(&file, &stat, *mode))
                    && stat.st_size.unsigned_abs() == *size
                    && xattr::digest(&file).map_err(inspect_error(path))? == *attributes
                    && is_content(file, path, &mut self.buffer)?
            }
            Line::Directory { mode, attributes, .. } => {
                let handle = match name {
                    "" => directory(parent, ".").map_err(inspect_error(path))?,
                    name => known_directory(parent, name, path)?,
                };
                let stat = rustix::fs::fstat(&handle).map_err(inspect_error(path))?;
                permissions(&stat) == *mode
                    && xattr::digest(&handle).map_err(inspect_error(path))? == *attributes
            }
            Line::Symlink { target, .. } => match readlinkat(parent, name, Vec::new()) {
                Ok(found) => found.as_bytes() == target.as_bytes(),
                Err(Errno::INVAL) => false,
                Err(Errno::NOENT) => return Err(altered(path, "is missing")),
                Err(error) => return Err(inspect_error(path)(error)),
            },
            Line::Hardlink { target, .. } => {
                let this = stat_known(parent, path, name)?;
                let (parent, name) = split(target);
                let other = stat_known(self.link_targets.enter(parent, known_directory)?, target, name)?;
                this.st_ino == other.st_ino
            }
            Line::Whiteout { .. } => is_whiteout(&stat_known(parent, path, name)?),
            Line::End(_) => true,
        };
        if same {
            Ok(())
        } else {
            Err(altered(path, "has another kind, mode, size, target, attribute or content"))
        }
    }
}

/// Removes write permission of the owner if it is the only difference from the recorded mode. An interrupted enabling of fs-verity leaves
/// it. This does not hide tampering: the owner of a file can add the permission at any time.
fn remove_owner_write(file: &OwnedFd, found: &Stat, mode: u32) -> bool {
    permissions(found) == mode | OWNER_WRITE && fchmod(file, Mode::from_raw_mode(mode)).is_ok()
}

/// The digest of the first `size` bytes, which are all bytes: this saves one system call for each of many small files.
fn hash(file: OwnedFd, path: &str, size: u64, buffer: &mut [u8]) -> Result<Digest> {
    let mut hashing = Hashing::new(());
    hashing
        .read_all_with(File::from(file).take(size), buffer)
        .with_context(|| format!("reading extracted file /{path}"))?;
    Ok(hashing.finish().2)
}

/// Number of entries in a directory, itself included.
fn count(dir: BorrowedFd<'_>, path: &str, depth: usize) -> Result<u64> {
    let mut count = 1;
    walk(dir, path, depth, &mut |_, _, _, _| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// The error that names an entry that is not of the image. It keeps all paths in memory, but only an altered layer needs it.
fn unknown_entry(root: BorrowedFd<'_>, mut record: &File, seal: &Seal) -> Result<Error> {
    record.rewind().context("reading a record")?;
    let mut known = HashSet::new();
    record::read(record, seal, |line| {
        known.insert(line.path().to_owned());
        Ok(())
    })?;
    let mut unknown = None;
    walk(root, "", 0, &mut |_, path, _, _| {
        unknown = unknown.take().or_else(|| (!known.contains(path)).then(|| path.to_owned()));
        Ok(())
    })?;
    Ok(altered(&unknown.unwrap_or_default(), "is not of the image"))
}
