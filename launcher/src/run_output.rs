//! `runtime run --output DIR`: what the command left in `/out`, written to a directory of the host after the container is dead.

use crate::error::{Context as _, Error, Kind, Result};
use crate::evidence_dir;
use invarlock_evidence::format::plan::File as FileDigest;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_runtime::OutputFile;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Most files that a command can leave in `/out`.
pub const MAX_FILES: u64 = 256;

/// The directory of the host.
pub struct OutputDirectory(PathBuf);

impl OutputDirectory {
    /// Fails if files could not be written there later. The directory is new or empty, so that nothing is replaced.
    pub fn check(path: &Path) -> Result<Self> {
        evidence_dir::check_writable("--output", path)?;
        let doing = || format!("reading --output {}", path.display());
        match std::fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(doing).map_err(|error| error.with_kind(Kind::Input));
            }
            Ok(mut entries) => {
                if entries.next().is_some() {
                    let message = format!("--output {}: the directory is not empty", path.display());
                    return Err(Error::input(message)).hint("name a new or empty directory");
                }
            }
        }
        Ok(OutputDirectory(path.to_owned()))
    }

    /// Writes the files. Each is new: an existing one is not replaced, and no link is followed.
    pub fn write(&self, files: &[OutputFile]) -> Result<Vec<FileDigest>> {
        let directory = self.0.display();
        std::fs::create_dir_all(&self.0).with_context(|| format!("creating {directory}"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.0, flags, Mode::empty())
            .with_context(|| format!("opening {directory}"))?;
        let mut digests = Vec::new();
        for file in files {
            let mut new = create(&root, &file.name)
                .with_context(|| format!("creating {}", self.0.join(&file.name).display()))?;
            new.write_all(&file.bytes)
                .with_context(|| format!("writing {}", self.0.join(&file.name).display()))?;
            let (sha256, bytes) = (sha256_hex(&file.bytes), file.bytes.len() as u64);
            digests.push(FileDigest { name: file.name.clone(), sha256, bytes });
        }
        Ok(digests)
    }
}

/// Creates a file below a directory. Its parts are plain names: the supervisor read them from directories.
fn create(root: &OwnedFd, name: &str) -> rustix::io::Result<File> {
    let parts: Vec<&str> = name.split('/').collect();
    let (name, parents) = parts.split_last().ok_or(Errno::INVAL)?;
    let mut at = rustix::io::fcntl_dupfd_cloexec(root, 3)?;
    for parent in parents {
        match rustix::fs::mkdirat(&at, *parent, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = rustix::fs::openat(&at, *parent, flags, Mode::empty())?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&at, *name, flags, Mode::from_raw_mode(0o666)).map(File::from)
}
