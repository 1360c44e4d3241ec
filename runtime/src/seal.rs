//! Memory files that no process can change any more.

use invarlock_error::{Context as _, Result};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long the kernel may hold a page of the file. Each attempt waits a sixth of a second inside the kernel.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A sealed memfd with these bytes, to be read from its start.
pub(crate) fn memory_file(bytes: &[u8]) -> Result<OwnedFd> {
    const DOING: &str = "copying an input into a sealed memfd";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("invarlock-input", flags).context(DOING)?);
    file.write_all(bytes).context(DOING)?;
    file.rewind().context(DOING)?;
    seal(&file).context(DOING)?;
    Ok(file.into())
}

/// Seals a memfd permanently. The kernel refuses while a page of it is referenced elsewhere. Kernel threads that scan for cold or
/// movable memory (DAMON, compaction) reference any page for a moment, so the attempt is repeated.
pub(crate) fn seal(file: impl AsFd) -> rustix::io::Result<()> {
    seal_within(file, TIMEOUT)
}

fn seal_within(file: impl AsFd, timeout: Duration) -> rustix::io::Result<()> {
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    let started = Instant::now();
    loop {
        match fcntl_add_seals(&file, all) {
            Err(Errno::BUSY) if started.elapsed() < timeout => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{SpliceFlags, pipe, splice};
    use std::io::Read as _;

    /// A memory file of which a pipe references a page, and the ends of the pipe.
    fn referenced() -> (File, File, File) {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create("referenced", flags).expect("a memory file"));
        file.write_all(&[7; 8192]).expect("written");
        let (read, write) = pipe().expect("a pipe");
        let moved = splice(&file, Some(&mut 0), &write, None, 4096, SpliceFlags::empty()).expect("a page");
        assert_eq!(moved, 4096);
        (file, read.into(), write.into())
    }

    #[test]
    fn waits_for_a_temporary_reference() {
        let (file, mut read, _write) = referenced();
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
    fn fails_on_a_permanent_reference() {
        let (file, _read, _write) = referenced();
        assert_eq!(seal_within(&file, Duration::from_millis(300)), Err(Errno::BUSY));
    }
}
