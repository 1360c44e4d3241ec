//! Files right below a directory handle: read with a bound, following nothing; written beside their place, synced and renamed.

use invarlock_error::Context as _;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::de::IgnoredAny;

use crate::{Error, Result};

/// Opens the regular file `name`, which is one component, right in `dir`; a link is not followed.
pub(crate) fn open(dir: &Dir, name: &str) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file =
        rustix::fs::openat(dir, name, flags, Mode::empty()).map(File::from).map_err(|error| match error {
            Errno::LOOP => {
                Error::safety(format!("{name} is a symbolic link, which nothing of ours ever makes there"))
            }
            Errno::NOENT => Error::integrity(format!("{name} is missing")),
            error => Error::system(format!("opening {name}: {error}")),
        })?;
    match file.metadata().context(format_args!("looking at {name}"))?.is_file() {
        true => Ok(file),
        false => Err(Error::safety(format!("{name} is not a regular file"))),
    }
}

/// Opens the directory `name` right in `dir`; a link is not followed.
pub(crate) fn open_dir(dir: &Dir, name: &str) -> Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Dir::from_std_file(File::from(fd))),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(Error::safety(format!("{name} is not a directory"))),
        Err(Errno::NOENT) => Err(Error::integrity(format!("{name} is missing"))),
        Err(error) => Err(Error::system(format!("opening {name}: {error}"))),
    }
}

/// Makes the directory `name`, 0755, unless it is there.
pub(crate) fn make_dir(dir: &Dir, name: &str) -> Result<()> {
    match dir.create_dir_with(name, DirBuilder::new().mode(0o755)) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::system(format!("making directory {name}: {error}")))
        }
        _ => Ok(()),
    }
}

/// Reads all of `file`, which may not be longer than `most`.
pub(crate) fn read_bounded(file: File, most: u64, what: impl std::fmt::Display) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).context(format_args!("reading {what}"))?;
    match bytes.len() as u64 > most {
        true => Err(Error::safety(format!("{what} is longer than the {most} bytes allowed"))),
        false => Ok(bytes),
    }
}

/// JSON that says what it is, or damage.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(what: impl std::fmt::Display, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::integrity(format!("{what} is not what it should be: {error}")))
}

/// Refuses a document that could be read as one of two kinds (CVE-2021-41190).
pub(crate) fn refuse_keys(what: impl std::fmt::Display, bytes: &[u8], keys: &[&str]) -> Result<()> {
    let members: BTreeMap<String, IgnoredAny> = parse(&what, bytes)?;
    match keys.iter().find(|key| members.contains_key(**key)) {
        Some(key) => {
            Err(Error::safety(format!("{what} also has {key:?}: it could be read as two different things")))
        }
        None => Ok(()),
    }
}

/// Writes `name` in `dir`: beside it, synced, renamed. Whatever fails leaves nothing behind.
pub(crate) fn write_verified<T>(
    dir: &Dir,
    name: &str,
    fill: impl FnOnce(&mut File) -> Result<T>,
) -> Result<T> {
    write_beside(dir, name, |file| {
        let filled = fill(file)?;
        file.sync_all().context(format_args!("writing {name}"))?;
        Ok(filled)
    })
    .and_then(|filled| sync(dir).map(|()| filled).context(format_args!("writing {name}")))
}

/// The same for one of many files, which whoever writes them syncs all at once before anything names them.
pub(crate) fn write_beside<T>(dir: &Dir, name: &str, fill: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    write_then_name(dir, name, |file| Ok((fill(file)?, name.to_owned())))
}

/// The same for a file that gets its name from what was written.
pub(crate) fn write_then_name<T>(
    dir: &Dir,
    what: &str,
    fill: impl FnOnce(&mut File) -> Result<(T, String)>,
) -> Result<T> {
    let partial = format!("{what}.tmp-{}", random());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let doing = |error: std::io::Error| Error::system(format!("writing {what}: {error}"));
    let mut file = rustix::fs::openat(dir, &*partial, flags, Mode::from_raw_mode(0o644))
        .map(File::from)
        .map_err(|error| doing(error.into()))?;
    let work = || -> Result<T> {
        // Whatever the umask: a container's own id reads it.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644)).map_err(|error| doing(error.into()))?;
        let (filled, name) = fill(&mut file)?;
        dir.rename(&partial, dir, name).map_err(doing)?;
        Ok(filled)
    };
    work().inspect_err(|_| drop(dir.remove_file(&partial)))
}

/// Writes a small file like that.
pub(crate) fn write_bytes(dir: &Dir, name: &str, bytes: &[u8]) -> Result<()> {
    write_verified(dir, name, |file| file.write_all(bytes).context(format_args!("writing {name}")))
}

/// Makes the names in `dir` last. Its own handle may be one that only names it, so it is opened anew.
pub(crate) fn sync(dir: &Dir) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::fsync(rustix::fs::openat(dir, ".", flags, Mode::empty())?)?)
}

/// Digits nobody can guess, for names of unfinished things.
pub(crate) fn random() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    format!("{:016x}", std::hash::RandomState::new().build_hasher().finish())
}
