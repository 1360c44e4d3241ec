//! The proof that a tree is still what was unpacked: in full, every name, mode, link, attribute and byte; or quickly, by what the file
//! system notes of every change.

use invarlock_error::Context as _;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fchmod, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::archive::DEEPEST;
use crate::cursor::{Cursor, directory, split};
use crate::digest::Hashing;
use crate::parallel::{WorkerPool, beside};
use crate::record::{self, Line, Seal};
use crate::{Digest, Error, Result, attributes};

/// Records up to this long are verified by one thread: starting others costs more.
const SMALL: u64 = 16 << 10;
/// Lines that a thread takes at once.
const BATCH: usize = 64;
/// The bit of a mode by which a file's owner may write.
pub(crate) const OWNER_WRITES: u32 = 0o200;

pub(crate) fn altered(path: &str, what: &str) -> Error {
    Error::integrity(format!("unpacked file /{path} {what}: the tree was altered or is damaged"))
}

fn system(path: &str) -> impl FnOnce(Errno) -> Error {
    let doing = format!("looking at unpacked file /{path}");
    move |error| Error::system(format!("{doing}: {error}"))
}

/// Compares the tree in `root` with its record, completely.
pub(crate) fn verify(root: &(impl AsFd + Sync), record: &File, seal: &Seal) -> Result<()> {
    // What is there besides shows in the count. The handle may be one that only names the root.
    let top = directory(root.as_fd(), ".").map_err(system(""))?;
    let start = || Checker::new(root);
    let length = record.metadata().context("looking at the record of a tree")?.len();
    let found = if length <= SMALL {
        let mut checker = start()?;
        record::read(record, seal, |line| checker.check(&line))?;
        count(top.as_fd(), "", 0)?
    } else {
        let crew = WorkerPool {
            batch: BATCH,
            start,
            work: |checker: &mut Checker, line: Line| checker.check(&line),
        };
        let (found, checked) =
            beside(|| count(top.as_fd(), "", 0), || crew.run(|give| record::read(record, seal, give)))?;
        checked?;
        found?
    };
    nothing_besides(found, top.as_fd(), record, seal)
}

/// All lines of the record are there; so is nothing else.
pub(crate) fn whole(root: &impl AsFd, record: &File, seal: &Seal) -> Result<()> {
    let top = directory(root.as_fd(), ".").map_err(system(""))?;
    nothing_besides(count(top.as_fd(), "", 0)?, top.as_fd(), record, seal)
}

fn nothing_besides(found: u64, top: BorrowedFd<'_>, record: &File, seal: &Seal) -> Result<()> {
    match found == seal.totals.entries {
        true => Ok(()),
        false => Err(name_extra(top, record, seal)?),
    }
}

/// What one thread needs to verify lines.
pub(crate) struct Checker {
    cursor: Cursor,
    targets: Cursor,
    buffer: Vec<u8>,
}

impl Checker {
    pub fn new(root: &impl AsFd) -> Result<Self> {
        let cursor = || Cursor::new(root).map_err(system(""));
        Ok(Self { cursor: cursor()?, targets: cursor()?, buffer: vec![0; 256 << 10] })
    }

    fn check(&mut self, line: &Line) -> Result<()> {
        self.check_with(line, |file, path, buffer| match line {
            Line::File { size, sha256, .. } => Ok(hash(file, path, *size, buffer)? == *sha256),
            _ => Ok(false),
        })
    }

    /// The same, a file's content judged by `content`.
    pub fn check_with(
        &mut self,
        line: &Line,
        content: impl FnOnce(OwnedFd, &str, &mut [u8]) -> Result<bool>,
    ) -> Result<()> {
        let path = line.path();
        let (parent, name) = split(path);
        let parent = self.cursor.enter(parent, known_directory)?;
        let same = match line {
            Line::File { mode, size, attributes, .. } => {
                let file = open_known(parent, path, name, OFlags::RDONLY)?;
                let stat = rustix::fs::fstat(&file).map_err(system(path))?;
                kind(&stat) == FileType::RegularFile
                    && (permissions(&stat) == *mode || leave_taken_back(&file, &stat, *mode))
                    && stat.st_size.unsigned_abs() == *size
                    && attributes::digest(&file).map_err(system(path))? == *attributes
                    && content(file, path, &mut self.buffer)?
            }
            Line::Directory { mode, attributes, .. } => {
                let handle = match name {
                    "" => directory(parent, ".").map_err(system(path))?,
                    name => known_directory(parent, name, path)?,
                };
                let stat = rustix::fs::fstat(&handle).map_err(system(path))?;
                permissions(&stat) == *mode
                    && attributes::digest(&handle).map_err(system(path))? == *attributes
            }
            Line::Symlink { target, .. } => match readlinkat(parent, name, Vec::new()) {
                Ok(found) => found.as_bytes() == target.as_bytes(),
                Err(Errno::INVAL) => false,
                Err(Errno::NOENT) => return Err(altered(path, "is missing")),
                Err(error) => return Err(system(path)(error)),
            },
            Line::Hardlink { target, .. } => {
                let this = stat_known(parent, path, name)?;
                let (parent, name) = split(target);
                let other = stat_known(self.targets.enter(parent, known_directory)?, target, name)?;
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

/// Whether a file differs from its recorded mode by the leave to write that its owner has for a moment while the kernel is told to hold
/// it (`verity`). Where somebody was killed in that moment, the mode is set back; whoever owns a file could give himself such leave anyway.
fn leave_taken_back(file: &OwnedFd, found: &Stat, mode: u32) -> bool {
    permissions(found) == mode | OWNER_WRITES && fchmod(file, Mode::from_raw_mode(mode)).is_ok()
}

pub(crate) fn known_directory(above: BorrowedFd<'_>, name: &str, path: &str) -> Result<OwnedFd> {
    directory(above, name).map_err(|error| match error {
        Errno::NOENT => altered(path, "is missing"),
        Errno::NOTDIR => altered(path, "is no directory any more"),
        error => system(path)(error),
    })
}

pub(crate) fn open_known(above: BorrowedFd<'_>, path: &str, name: &str, flags: OFlags) -> Result<OwnedFd> {
    // NONBLOCK: a fifo that was put there must not stop us.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(above, name, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => altered(path, "is missing"),
        Errno::LOOP | Errno::NXIO | Errno::NODEV => altered(path, "is no file any more"),
        error => system(path)(error),
    })
}

fn stat_known(above: BorrowedFd<'_>, path: &str, name: &str) -> Result<Stat> {
    let (above_itself, name) = (name.is_empty(), if name.is_empty() { "." } else { name });
    debug_assert!(!above_itself || path.is_empty(), "only the root has no name");
    statat(above, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| match error {
        Errno::NOENT => altered(path, "is missing"),
        error => system(path)(error),
    })
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// How overlayfs knows that something is gone.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The digest of the first `size` bytes, which are all: one call less for each of many small files.
fn hash(file: OwnedFd, path: &str, size: u64, buffer: &mut [u8]) -> Result<Digest> {
    let mut hashing = Hashing::new(());
    hashing
        .read_all_with(File::from(file).take(size), buffer)
        .context(format_args!("reading unpacked file /{path}"))?;
    Ok(hashing.finish().2)
}

/// Calls `each` for everything below `dir`, with its kind, a directory before what is in it.
pub(crate) fn walk(
    dir: BorrowedFd<'_>,
    path: &str,
    depth: usize,
    each: &mut impl FnMut(BorrowedFd<'_>, &str, &str, FileType) -> Result<()>,
) -> Result<()> {
    if depth > DEEPEST {
        return Err(altered(path, "is deeper than any image's"));
    }
    for entry in rustix::fs::Dir::read_from(dir).map_err(system(path))? {
        let entry = entry.map_err(system(path))?;
        let Ok(name) = entry.file_name().to_str() else {
            return Err(altered(path, "holds a name that is not of the image"));
        };
        if matches!(name, "." | "..") {
            continue;
        }
        let below = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        let kind = match entry.file_type() {
            FileType::Unknown => kind(&stat_known(dir, &below, name)?),
            known => known,
        };
        each(dir, &below, name, kind)?;
        if kind == FileType::Directory {
            let inner = known_directory(dir, name, &below)?;
            walk(inner.as_fd(), &below, depth + 1, each)?;
        }
    }
    Ok(())
}

/// Things in a tree, itself included.
fn count(dir: BorrowedFd<'_>, path: &str, depth: usize) -> Result<u64> {
    let mut count = 1;
    walk(dir, path, depth, &mut |_, _, _, _| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// Which thing is not of the image. Only an altered tree takes this way, so it may cost memory.
fn name_extra(root: BorrowedFd<'_>, mut record: &File, seal: &Seal) -> Result<Error> {
    record.rewind().context("reading the record of a tree")?;
    let mut known = HashSet::new();
    record::read(record, seal, |line| {
        known.insert(line.path().to_owned());
        Ok(())
    })?;
    let mut extra = None;
    walk(root, "", 0, &mut |_, path, _, _| {
        extra = extra.take().or_else(|| (!known.contains(path)).then(|| path.to_owned()));
        Ok(())
    })?;
    Ok(altered(&extra.unwrap_or_default(), "is not of the image"))
}

/// What the file system notes of a thing, and changes with it: where it is kept, how long it is, when its content and when anything of
/// it changed last.
const STAMP: usize = 32;

fn stamp(stat: &Stat) -> [u8; STAMP] {
    let nanoseconds =
        |seconds: i64, rest: u64| (seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(rest);
    let mut bytes = [0; STAMP];
    let words = [
        stat.st_ino,
        stat.st_size.unsigned_abs(),
        nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
    ];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Writes the stamp of everything in the record, in its order.
pub(crate) fn write_stamps(root: &impl AsFd, record: &File, seal: &Seal, to: &File) -> Result<()> {
    let mut cursor = Cursor::new(root).map_err(system(""))?;
    let mut to = BufWriter::with_capacity(64 << 10, to);
    let writing = || "writing the stamps of a tree";
    record::read(record, seal, |line| {
        let (parent, name) = split(line.path());
        let stat = stat_known(cursor.enter(parent, known_directory)?, line.path(), name)?;
        to.write_all(&stamp(&stat)).context(writing())
    })?;
    to.flush().context(writing())
}

/// Compares everything in the record with its stamp. Whatever was added or removed shows in the stamp of its directory. An error says
/// that something may have changed, not that it has.
pub(crate) fn verify_quickly(root: &impl AsFd, record: &File, seal: &Seal, stamps: &File) -> Result<()> {
    let mut cursor = Cursor::new(root).map_err(system(""))?;
    let mut stamps = BufReader::with_capacity(64 << 10, stamps);
    record::read(record, seal, |line| {
        let mut expected = [0; STAMP];
        stamps.read_exact(&mut expected).context("reading the stamps of a tree")?;
        let path = line.path();
        let (parent, name) = split(path);
        let stat = stat_known(cursor.enter(parent, known_directory)?, path, name)?;
        if stamp(&stat) == expected {
            Ok(())
        } else {
            Err(altered(path, "has changed since it was unpacked"))
        }
    })
}
