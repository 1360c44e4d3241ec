//! fs-verity for extracted layers. The kernel refuses changes of such files, also by root, and reading bytes that changed below the file
//! system is an error. Before a run, the fs-verity digest of each file is compared. Names, modes, links and attributes, which fs-verity does
//! not cover, are compared as in a full verification.

use invarlock_error::Context as _;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, fchmod};
use rustix::io::Errno;

use super::record::{self, Seal};
use super::verify::{Checker, OWNER_WRITE, check_complete};
use crate::layer::cursor::{Cursor, split};
use crate::layer::entry::Line;
use crate::layer::inspect::{altered, file_type, known_directory, open_known};
use crate::oci::{Digest, Hashing};
use crate::{Error, Result, sys};

/// Time that another process may take to enable fs-verity for one file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);
/// How often write permission is added again after another process removed it.
const MAX_ATTEMPTS: u32 = 100;

/// Enables fs-verity for every file and writes the digests to `list`, in the order of the record. Returns the digest of the list. Contents
/// are not verified: the caller does that afterwards, when they can no longer change.
pub(crate) fn enable(root: &impl AsFd, record: &File, seal: &Seal, list: &File) -> Result<Digest> {
    let mut cursor = Cursor::new(root).map_err(failed("/"))?;
    let mut list = Hashing::new(BufWriter::new(list));
    record::read(record, seal, |line| {
        let Line::File { path, mode, .. } = &line else { return Ok(()) };
        let (parent, name) = split(path);
        let file = open_known(cursor.enter(parent, known_directory)?, path, name, OFlags::RDONLY)?;
        let stat = rustix::fs::fstat(&file).map_err(failed(path))?;
        if file_type(&stat) != FileType::RegularFile {
            return Err(altered(path, "is no longer a file"));
        }
        enable_for_file(file.as_fd(), *mode, path)?;
        let digest = sys::measure_verity(&file).map_err(failed(path))?;
        let digest = digest.ok_or_else(|| {
            Error::integrity(format!(
                "extracted file /{path} has an fs-verity digest of another kind: InvarLock did not create it"
            ))
        })?;
        list.write_all(&digest).context("writing fs-verity digests")
    })?;
    let (mut list, _, digest) = list.finish();
    list.flush().context("writing fs-verity digests")?;
    Ok(digest)
}

/// Compares the extracted layer with its record, and the fs-verity digests of its files with `list`, which must have the digest
/// `list_digest`.
pub(crate) fn verify(
    root: &(impl AsFd + Sync),
    record: &File,
    seal: &Seal,
    list: &File,
    list_digest: &Digest,
) -> Result<()> {
    let reading = "reading fs-verity digests";
    let mut checker = Checker::new(root)?;
    let mut list = BufReader::new(Hashing::new(list));
    record::read(record, seal, |line| {
        let mut expected = [0; 32];
        if matches!(line, Line::File { .. }) {
            list.read_exact(&mut expected).context(reading)?;
        }
        checker.check_with(&line, |file, path, _| {
            Ok(sys::measure_verity(file).map_err(failed(path))? == Some(expected))
        })
    })?;
    std::io::copy(&mut list, &mut std::io::sink()).context(reading)?;
    if list.into_inner().finish().2 != *list_digest {
        return Err(Error::integrity("the list of fs-verity digests does not have the digest in the seal"));
    }
    check_complete(root, record, seal)
}

/// Enables fs-verity for one file. The kernel requires write permission, which root always has; otherwise the owner gets it temporarily.
/// A process that verifies the file meanwhile, or after a kill, removes the permission.
fn enable_for_file(file: BorrowedFd<'_>, mode: u32, path: &str) -> Result<()> {
    let set_mode = |mode| fchmod(file, Mode::from_raw_mode(mode)).map_err(failed(path));
    let mut enabled = enable_when_free(file);
    if mode & OWNER_WRITE == 0 && enabled == Err(Errno::ACCESS) {
        for _ in 0..MAX_ATTEMPTS {
            set_mode(mode | OWNER_WRITE)?;
            enabled = enable_when_free(file);
            if enabled != Err(Errno::ACCESS) {
                break;
            }
        }
        set_mode(mode)?;
    }
    enabled.map_err(failed(path))
}

/// Waits for another process that is enabling fs-verity for the same file.
fn enable_when_free(file: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let started = Instant::now();
    loop {
        match sys::enable_verity(file) {
            Err(Errno::EXIST) => return Ok(()),
            Err(Errno::BUSY | Errno::TXTBSY) if started.elapsed() < BUSY_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

fn failed(path: &str) -> impl FnOnce(Errno) -> Error {
    move |error| {
        match error {
        Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS => {
            Error::unsupported("the file system of the store does not support fs-verity").with_hint(
                "set INVARLOCK_STORE to a directory on ext4 or f2fs created or tuned with `-O verity`, or on btrfs, with blocks of 4096 \
                 bytes and a kernel with CONFIG_FS_VERITY; or verify with --verify-image=full",
            )
        }
        error => Error::from(error).context(format_args!("fs-verity of extracted file /{path}")),
    }
    }
}
