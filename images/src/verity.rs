//! Trees whose files the kernel itself holds (fs-verity): nobody changes one any more, root included, and what changed below the file
//! system is an error where it is read. Before a run each file is asked for the digest by which it is held; names, modes, links and
//! attributes, which that does not cover, are compared as in the full way.

use invarlock_error::Context as _;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, fchmod};
use rustix::io::Errno;

use crate::cursor::{Cursor, split};
use crate::digest::Hashing;
use crate::record::{self, Line, Seal};
use crate::tree::{Checker, OWNER_WRITES, altered, kind, known_directory, open_known, whole};
use crate::{Digest, Error, Result, sys};

/// How long somebody else may take to have the kernel hash one file.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the leave to write is given anew where others take it back.
const TRIES: u32 = 100;

/// Has the kernel hold every file of a tree, and writes the digests by which it does, in the order of the record. What the files hold is
/// not looked at: a full verification behind it proves that, and nothing changes it any more. Gives the digest of what was written.
pub(crate) fn hold(root: &impl AsFd, record: &File, seal: &Seal, to: &File) -> Result<Digest> {
    let mut cursor = Cursor::new(root).map_err(doing("/"))?;
    let mut to = Hashing::new(BufWriter::new(to));
    record::read(record, seal, |line| {
        let Line::File { path, mode, .. } = &line else { return Ok(()) };
        let (parent, name) = split(path);
        let file = open_known(cursor.enter(parent, known_directory)?, path, name, OFlags::RDONLY)?;
        let stat = rustix::fs::fstat(&file).map_err(doing(path))?;
        if kind(&stat) != FileType::RegularFile {
            return Err(altered(path, "is no file any more"));
        }
        enable(file.as_fd(), *mode, path)?;
        let digest = sys::measure_verity(&file).map_err(doing(path))?;
        let digest = digest.ok_or_else(|| {
            Error::integrity(format!(
                "unpacked file /{path} is held by another kind of digest: it was not put there by us"
            ))
        })?;
        to.write_all(&digest).context("writing digests of fs-verity")
    })?;
    let (mut to, _, digest) = to.finish();
    to.flush().context("writing digests of fs-verity")?;
    Ok(digest)
}

/// Compares the tree with its record, and what the kernel says of its files with `list`, whose digest is `digests`.
pub(crate) fn verify(
    root: &(impl AsFd + Sync),
    record: &File,
    seal: &Seal,
    list: &File,
    digests: &Digest,
) -> Result<()> {
    let reading = || "reading digests of fs-verity";
    let mut checker = Checker::new(root)?;
    let mut list = BufReader::new(Hashing::new(list));
    record::read(record, seal, |line| {
        let mut expected = [0; 32];
        if matches!(line, Line::File { .. }) {
            list.read_exact(&mut expected).context(reading())?;
        }
        checker.check_with(&line, |file, path, _| {
            Ok(sys::measure_verity(file).map_err(doing(path))? == Some(expected))
        })
    })?;
    std::io::copy(&mut list, &mut std::io::sink()).context(reading())?;
    if list.into_inner().finish().2 != *digests {
        return Err(Error::integrity("the digests of fs-verity are not those that were noted"));
    }
    whole(root, record, seal)
}

/// Enables it. The kernel wants to see that the owner may write: root always may, others get leave for a moment. Whoever verifies the
/// file in that moment takes the leave back, and so does the next to verify it where somebody was killed.
fn enable(file: BorrowedFd<'_>, mode: u32, path: &str) -> Result<()> {
    let change = |mode| fchmod(file, Mode::from_raw_mode(mode)).map_err(doing(path));
    let mut enabled = enable_once_free(file);
    if mode & OWNER_WRITES == 0 && enabled == Err(Errno::ACCESS) {
        for _ in 0..TRIES {
            change(mode | OWNER_WRITES)?;
            enabled = enable_once_free(file);
            if enabled != Err(Errno::ACCESS) {
                break;
            }
        }
        change(mode)?;
    }
    enabled.map_err(doing(path))
}

/// Waits for whoever else has the file hashed just now.
fn enable_once_free(file: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let started = Instant::now();
    loop {
        match sys::enable_verity(file) {
            Err(Errno::EXIST) => return Ok(()),
            Err(Errno::BUSY | Errno::TXTBSY) if started.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

fn doing(path: &str) -> impl FnOnce(Errno) -> Error {
    move |error| {
        match error {
        Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS => Error::unsupported(
            "the store's file system has no fs-verity: it takes ext4 made or tuned with `-O verity`, f2fs likewise, or btrfs, each with \
             blocks of 4096 bytes, and a kernel with CONFIG_FS_VERITY; set INVARLOCK_STORE to a directory on one, or verify with \
             --verify-image=full"
                .to_owned(),
        ),
        error => Error::system(format!("having the kernel hold unpacked file /{path}: {error}")),
    }
    }
}
