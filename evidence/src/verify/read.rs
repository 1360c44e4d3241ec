//! Opening evidence without following a link in its last component, and never more of it than a limit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// Largest evaluation report that is read.
pub const REPORT_LIMIT: u64 = 64 << 20;
/// Largest manifest that is read.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// Largest run report that is read.
pub const RUN_REPORT_LIMIT: u64 = 256 << 20;

/// The bytes of a regular file of at most `limit` bytes; its last component must not be a symbolic link.
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
    // Without blocking: a pipe must not stop the verifier.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).map_err(|why| {
        if why.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            return io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a symbolic link; give the file itself",
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
            "it is a symbolic link; give the file itself",
        ));
    }
    OpenOptions::new().read(true).open(path)
}
