//! Reads evidence files: no symbolic link in the last path component, and no more bytes than a limit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// Largest evaluation report that is read.
pub const REPORT_LIMIT: u64 = 64 << 20;
/// Largest manifest that is read.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// Largest run report that is read.
pub const RUN_REPORT_LIMIT: u64 = 256 << 20;

/// The content of a regular file of at most `limit` bytes. The last component of `path` must not be a symbolic link.
pub fn read_evidence(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let other = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let file = open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return other("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(limit) as usize);
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return other(format!("it is larger than {} MiB", limit >> 20));
    }
    Ok(bytes)
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::OFlags;
    use std::os::unix::fs::OpenOptionsExt;
    // Non-blocking: opening a named pipe must not block the verifier.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).map_err(|why| {
        if why.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            return io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a symbolic link; pass the file itself",
            );
        }
        why
    })
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    if path.symlink_metadata()?.file_type().is_symlink() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a symbolic link; pass the file itself",
        ));
    }
    OpenOptions::new().read(true).open(path)
}
