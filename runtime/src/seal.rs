//! Memory files that nobody can change any more.

use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long others may look at a page of the file. The kernel waits a sixth of a second by itself at each try.
const PATIENCE: Duration = Duration::from_secs(10);

/// Seals it for good. The kernel does so only while nobody else holds a page of it, and its own threads that look for cold or
/// movable memory (DAMON, compaction) hold any page for a moment: that passes.
pub(crate) fn seal(file: impl AsFd) -> rustix::io::Result<()> {
    seal_within(file, PATIENCE)
}

fn seal_within(file: impl AsFd, patience: Duration) -> rustix::io::Result<()> {
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    let started = Instant::now();
    loop {
        match fcntl_add_seals(&file, all) {
            Err(Errno::BUSY) if started.elapsed() < patience => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;
    use rustix::pipe::{SpliceFlags, pipe, splice};
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    /// A memory file a page of which lies in a pipe, and that pipe's ends.
    fn held() -> (File, File, File) {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create("held", flags).expect("a memory file"));
        file.write_all(&[7; 8192]).expect("written");
        let (read, write) = pipe().expect("a pipe");
        let moved = splice(&file, Some(&mut 0), &write, None, 4096, SpliceFlags::empty()).expect("a page");
        assert_eq!(moved, 4096);
        (file, read.into(), write.into())
    }

    #[test]
    fn a_page_that_somebody_holds_for_a_while_is_waited_for() {
        let (file, mut read, _write) = held();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Longer than the kernel waits.
                std::thread::sleep(Duration::from_millis(700));
                read.read_exact(&mut [0; 4096]).expect("the page");
            });
            seal(&file).expect("sealed");
        });
        assert_eq!((&file).write(b"x").expect_err("it is sealed").raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn what_is_held_for_ever_is_not_sealed() {
        let (file, _read, _write) = held();
        assert_eq!(seal_within(&file, Duration::from_millis(300)), Err(Errno::BUSY));
    }
}
