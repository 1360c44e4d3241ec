//! Ownership of temporary files and directories by a live process.
//!
//! The creating process holds a lock on the file or directory until it ends, also when it is killed. A later process may remove one that
//! is not locked, for example after a power failure.

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, fstat, open, statat};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for a lock. A process that finds the file abandoned holds it for a shorter time. Any other process that may open the file
/// can hold it without end.
const WAIT: Duration = Duration::from_secs(2);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(2);

/// Locks the file or directory that this process has just created at `path`. False if another process removed it as abandoned before it
/// was locked, or holds its lock for too long; the caller must then create another one.
pub fn claim(made: impl AsFd, path: &Path) -> rustix::io::Result<bool> {
    use rustix::io::Errno;
    let latest = Instant::now() + WAIT;
    loop {
        match flock(&made, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < latest => std::thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            // Without locks on this file system nothing is found abandoned either.
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(true),
            other => break other?,
        }
    }
    is_at(made, path)
}

/// Whether `path` still names this file. Under the lock this stays true: only the holder removes it.
fn is_at(this: impl AsFd, path: &Path) -> rustix::io::Result<bool> {
    let this = fstat(&this)?;
    match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (this.st_dev, this.st_ino)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Opens and locks `path` if it belongs to the caller and no process holds its lock.
pub fn abandoned(path: &Path) -> Option<OwnedFd> {
    // NONBLOCK: opening a FIFO must not block.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let found = open(path, flags, Mode::empty()).ok()?;
    let own = fstat(&found).ok()?.st_uid == rustix::process::geteuid().as_raw();
    let free = own && flock(&found, FlockOperation::NonBlockingLockExclusive).is_ok();
    (free && is_at(&found, path).ok()?).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn locked_file_is_not_abandoned() {
        let dir = tempfile::tempdir().expect("it");
        let path = dir.path().join("it");
        let file = File::create(&path).expect("it");
        assert!(claim(&file, &path).expect("it"));
        assert!(abandoned(&path).is_none());
        drop(file);
        assert!(abandoned(&path).is_some());
        assert!(abandoned(&dir.path().join("nothing")).is_none());
    }

    #[test]
    fn waiting_for_a_lock_is_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let file = File::create(&path).expect("a file");
        let other = File::open(&path).expect("the file");
        flock(&other, FlockOperation::LockExclusive).expect("the lock of another process");
        let start = Instant::now();
        assert!(!claim(&file, &path).expect("no lock"));
        assert!(start.elapsed() < 2 * WAIT);
        drop(other);
        assert!(claim(&file, &path).expect("the lock"));
    }

    #[test]
    fn removed_or_replaced_file_is_not_claimed() {
        let dir = tempfile::tempdir().expect("it");
        let path = dir.path().join("it");
        let file = File::create(&path).expect("it");
        std::fs::remove_file(&path).expect("it");
        assert!(!claim(&file, &path).expect("it"));
        File::create(&path).expect("it");
        assert!(!claim(&file, &path).expect("it"));
    }

    #[test]
    fn links_and_fifos_do_not_block() {
        let dir = tempfile::tempdir().expect("it");
        let (link, fifo) = (dir.path().join("link"), dir.path().join("fifo"));
        std::os::unix::fs::symlink(dir.path(), &link).expect("it");
        assert!(abandoned(&link).is_none());
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .expect("it");
        assert!(abandoned(&fifo).is_some());
    }
}
