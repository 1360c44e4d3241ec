//! Files directly in a directory, by its handle. Reads are bounded and follow no link. Writes go to a temporary file that is synced and
//! renamed.

use invarlock_error::Context as _;
use std::fs::File;
use std::io::{Read as _, Write as _};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, Result};
use invarlock_error::bail;

/// Opens the regular file `name`, a single component, in `dir`. Links are not followed.
pub(crate) fn open(dir: &Dir, name: &str) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => bail!(Safety, "{name} is a symbolic link, which InvarLock never creates there"),
        Err(Errno::NOENT) => bail!(Integrity, "{name} is missing"),
        Err(error) => return Err(error).with_context(|| format!("opening {name}")),
    };
    match file.metadata().with_context(|| format!("reading the metadata of {name}"))?.is_file() {
        true => Ok(file),
        false => Err(Error::safety(format!("{name} is not a regular file"))),
    }
}

/// Opens the directory `name` in `dir`. Links are not followed.
pub(crate) fn open_dir(dir: &Dir, name: &str) -> Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Dir::from_std_file(File::from(fd))),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(Error::safety(format!("{name} is not a directory"))),
        Err(Errno::NOENT) => Err(Error::integrity(format!("{name} is missing"))),
        Err(error) => Err(error).with_context(|| format!("opening {name}")),
    }
}

/// Creates the directory `name` with mode 0755, unless it exists.
pub(crate) fn ensure_dir(dir: &Dir, name: &str) -> Result<()> {
    match dir.create_dir_with(name, DirBuilder::new().mode(0o755)) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("creating directory {name}"))
        }
        _ => Ok(()),
    }
}

/// Reads all of `file`, of at most `limit` bytes.
pub(crate) fn read_bounded(file: File, limit: u64, what: impl std::fmt::Display) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).context(format_args!("reading {what}"))?;
    match bytes.len() as u64 > limit {
        true => Err(Error::safety(format!("{what} is longer than the {limit} bytes allowed"))),
        false => Ok(bytes),
    }
}

/// Writes the file `name` in `dir`: a temporary file is filled, synced and renamed. A failure leaves nothing behind.
pub(crate) fn write_durable<T>(
    dir: &Dir,
    name: &str,
    fill: impl FnOnce(&mut File) -> Result<T>,
) -> Result<T> {
    write_atomic(dir, name, |file| {
        let filled = fill(file)?;
        file.sync_all().context(format_args!("writing {name}"))?;
        Ok(filled)
    })
    .and_then(|filled| sync_dir(dir).map(|()| filled).context(format_args!("writing {name}")))
}

/// Like [`write_durable`], without syncing: for one of many files, which the caller syncs together before anything refers to them.
pub(crate) fn write_atomic<T>(dir: &Dir, name: &str, fill: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    write_named_by_content(dir, name, |file| Ok((fill(file)?, name.to_owned())))
}

/// Like [`write_atomic`], for a file whose name follows from its content.
pub(crate) fn write_named_by_content<T>(
    dir: &Dir,
    what: &str,
    fill: impl FnOnce(&mut File) -> Result<(T, String)>,
) -> Result<T> {
    let partial = format!("{what}.tmp-{}", random_suffix());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let writing = || format!("writing {what}");
    let mut file = rustix::fs::openat(dir, &*partial, flags, Mode::from_raw_mode(0o644))
        .map(File::from)
        .with_context(writing)?;
    let write = || -> Result<T> {
        // The umask must not matter: the unprivileged id of a container reads the file.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644)).with_context(writing)?;
        let (filled, name) = fill(&mut file)?;
        dir.rename(&partial, dir, name).with_context(writing)?;
        Ok(filled)
    };
    write().inspect_err(|_| drop(dir.remove_file(&partial)))
}

/// Writes `bytes` like [`write_durable`].
pub(crate) fn write_bytes(dir: &Dir, name: &str, bytes: &[u8]) -> Result<()> {
    write_durable(dir, name, |file| file.write_all(bytes).context(format_args!("writing {name}")))
}

/// Syncs the names in `dir`. It is reopened, since its handle may be an `O_PATH` one.
pub(crate) fn sync_dir(dir: &Dir) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::fsync(rustix::fs::openat(dir, ".", flags, Mode::empty())?)?)
}

/// Unpredictable digits for the names of temporary files.
pub(crate) fn random_suffix() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    format!("{:016x}", std::hash::RandomState::new().build_hasher().finish())
}
