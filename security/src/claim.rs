//! What goes with the process that made it, even where that is killed.
//!
//! The maker holds a lock on the file or directory as long as it lives. Whoever finds one without may remove it: after a power cut, the
//! next start.

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, fstat, open, statat};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Locks what this process has just made at `path`. False where somebody came in between, took it for abandoned and removed it: then
/// another one has to be made.
pub fn claim(made: impl AsFd, path: &Path) -> rustix::io::Result<bool> {
    use rustix::io::Errno;
    match flock(&made, FlockOperation::LockExclusive) {
        // A file system without locks: nothing on it is found abandoned either.
        Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(true),
        other => other?,
    }
    is_at(made, path)
}

/// Whether the name still leads to it. Under the lock this stays so: only its holder removes it.
fn is_at(this: impl AsFd, path: &Path) -> rustix::io::Result<bool> {
    let this = fstat(&this)?;
    match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (this.st_dev, this.st_ino)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// What lies at `path`, locked, where it is the caller's own and no process holds it any more.
pub fn abandoned(path: &Path) -> Option<OwnedFd> {
    // NONBLOCK: a fifo must not stop us.
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
    fn what_is_held_is_not_abandoned() {
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
    fn what_was_removed_or_replaced_in_between_is_not_claimed() {
        let dir = tempfile::tempdir().expect("it");
        let path = dir.path().join("it");
        let file = File::create(&path).expect("it");
        std::fs::remove_file(&path).expect("it");
        assert!(!claim(&file, &path).expect("it"));
        File::create(&path).expect("it");
        assert!(!claim(&file, &path).expect("it"));
    }

    #[test]
    fn links_and_fifos_stop_nobody() {
        let dir = tempfile::tempdir().expect("it");
        let (link, fifo) = (dir.path().join("link"), dir.path().join("fifo"));
        std::os::unix::fs::symlink(dir.path(), &link).expect("it");
        assert!(abandoned(&link).is_none());
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .expect("it");
        assert!(abandoned(&fifo).is_some());
    }
}
