//! `flock` locks of directories and files. They end with the process that holds them and leave no file behind.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FlockOperation, flock, fstat, statat};
use rustix::io::Errno;

/// Takes a lock, and waits for it if the operation does.
pub(crate) fn take(file: impl AsFd, operation: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match flock(&file, operation) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Whether `name` in `dir` is this file. It may have been replaced while this process waited for its lock.
pub(crate) fn is_current(file: impl AsFd, dir: impl AsFd, name: &str) -> rustix::io::Result<bool> {
    let own = fstat(file)?;
    let found = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    Ok(found.is_ok_and(|found| (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)))
}
