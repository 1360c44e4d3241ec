//! An OCI image layout: blobs by digest and an index of what they mean. Everything is read and written below one directory handle.

use std::fs::File;
use std::io::{Read as _, Write};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _};
use oci_spec::image::ImageIndex;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::digest::Hashing;
use crate::{Digest, Error, Result};

/// Longest manifest, config or index.
pub(crate) const LONGEST_JSON: u64 = 4 << 20;

pub(crate) const TAG: &str = "org.opencontainers.image.ref.name";

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const EMPTY_INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

#[derive(Debug)]
pub(crate) struct Layout {
    dir: Dir,
    blobs: Dir,
}

/// A layout whose writers' lock is held.
pub(crate) struct Locked<'a> {
    pub layout: &'a Layout,
    _lock: File,
}

impl Layout {
    /// Opens the layout in `dir`, which must be one.
    pub fn open(path: &Path) -> Result<Self> {
        let dir = Dir::open_ambient_dir(path, ambient_authority()).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::Input(format!("image layout {} is not there", path.display()))
            }
            _ => Error::System(format!("opening image layout {}: {error}", path.display())),
        })?;
        Self::in_dir(dir).map_err(|error| error.within(format_args!("image layout {}", path.display())))
    }

    fn in_dir(dir: Dir) -> Result<Self> {
        let version: serde_json::Value =
            parse("oci-layout", &read_bounded(open(&dir, "oci-layout")?, 4096, "oci-layout")?)?;
        match version.get("imageLayoutVersion").and_then(|it| it.as_str()) {
            Some("1.0.0") => {}
            other => {
                return Err(Error::Unsupported(format!("oci-layout has version {other:?}; 1.0.0 is known")));
            }
        }
        let blobs = open_dir(&open_dir(&dir, "blobs")?, "sha256")?;
        Ok(Self { dir, blobs })
    }

    /// Opens the layout in `dir`, and makes it one first where it is empty.
    pub fn open_or_create(dir: Dir) -> Result<Self> {
        let there = |name: &str| dir.symlink_metadata(name).is_ok();
        if !(there("oci-layout") && there("index.json") && there("blobs/sha256")) {
            let _lock = lock(&dir)?;
            make_dir(&dir, "blobs")?;
            make_dir(&open_dir(&dir, "blobs")?, "sha256")?;
            make_dir(&dir, "trees")?;
            if !there("index.json") {
                write_verified(&dir, "index.json", |file| file.write_all(EMPTY_INDEX.as_bytes()))?;
            }
            if !there("oci-layout") {
                write_verified(&dir, "oci-layout", |file| file.write_all(LAYOUT.as_bytes()))?;
            }
        }
        Self::in_dir(dir)
    }

    /// The layout's directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Waits until nobody else writes.
    pub fn lock(&self) -> Result<Locked<'_>> {
        Ok(Locked { layout: self, _lock: lock(&self.dir)? })
    }

    /// The index.
    pub fn index(&self) -> Result<ImageIndex> {
        let bytes = read_bounded(open(&self.dir, "index.json")?, LONGEST_JSON, "index.json")?;
        refuse_keys("index.json", &bytes, &["layers", "config"])?;
        parse("index.json", &bytes)
    }

    /// Opens a blob. What is read of it is verified by the caller, through [`Hashing`], or by [`Layout::json`].
    pub fn blob(&self, digest: &Digest, size: u64) -> Result<File> {
        let what = || format!("blob {digest}");
        let file = open(&self.blobs, &digest.hex()).map_err(|error| error.within(what()))?;
        let found = file.metadata().map_err(Error::io(what()))?.len();
        if found != size {
            return Err(Error::Integrity(format!(
                "blob {digest} has {found} bytes, but its descriptor says {size}"
            )));
        }
        Ok(file)
    }

    /// The bytes of a small blob, verified.
    pub fn json(&self, digest: &Digest, size: u64) -> Result<Vec<u8>> {
        if size > LONGEST_JSON {
            return Err(Error::Safety(format!(
                "blob {digest} is said to have {size} bytes; {LONGEST_JSON} are the most for JSON"
            )));
        }
        let bytes = read_bounded(self.blob(digest, size)?, size, digest)?;
        let found = Digest::of(&bytes);
        if found != *digest || bytes.len() as u64 != size {
            return Err(Error::Integrity(format!(
                "blob {digest} holds bytes with digest {found}: the store was altered or is damaged"
            )));
        }
        Ok(bytes)
    }

    /// Whether the blob is there with the bytes it should have.
    pub fn holds(&self, digest: &Digest, size: u64) -> bool {
        let mut hashing = Hashing::new(());
        self.blob(digest, size).is_ok_and(|blob| hashing.read_all(blob).is_ok())
            && hashing.finish().2 == *digest
    }

    /// The size of a blob that is there.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        self.blobs.symlink_metadata(digest.hex()).ok().filter(|it| it.is_file()).map(|it| it.len())
    }
}

impl Locked<'_> {
    /// Writes a blob whose digest must come out as `expected`, unless it is there and sound.
    pub fn put(
        &self,
        expected: &Digest,
        size: u64,
        fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        if self.layout.holds(expected, size) {
            return Ok(());
        }
        let mut found = None;
        write_verified(&self.layout.blobs, &expected.hex(), |file| {
            let mut hashing = Hashing::new(file);
            fill(&mut hashing)?;
            let (_, count, digest) = hashing.finish();
            found = Some((count, digest));
            if (count, &digest) == (size, expected) {
                Ok(())
            } else {
                Err(std::io::ErrorKind::InvalidData.into())
            }
        })
        .map_err(|error| match found {
            Some((_, digest)) if digest != *expected => Error::Integrity(format!(
                "writing blob {expected}: its source changed meanwhile (now {digest}); try again"
            )),
            _ => error,
        })
    }

    /// Makes `tag` mean the manifest described by `descriptor` (JSON), and nothing else.
    pub fn tag(&self, tag: &str, mut descriptor: serde_json::Value) -> Result<()> {
        let bytes = read_bounded(open(&self.layout.dir, "index.json")?, LONGEST_JSON, "index.json")?;
        let mut index: serde_json::Value = parse("index.json", &bytes)?;
        let Some(manifests) = index.get_mut("manifests").and_then(|it| it.as_array_mut()) else {
            return Err(Error::Integrity("index.json has no list of manifests".to_owned()));
        };
        manifests.retain(|it| it["annotations"][TAG] != tag);
        descriptor["annotations"] = serde_json::json!({ TAG: tag });
        manifests.push(descriptor);
        let text = serde_json::to_vec(&index)
            .map_err(|error| Error::System(format!("writing index.json: {error}")))?;
        write_verified(&self.layout.dir, "index.json", |file| file.write_all(&text))
    }
}

/// Takes the writers' lock; it goes with the file that is returned, and with the process.
fn lock(dir: &Dir) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, "lock", flags, Mode::from_raw_mode(0o600))
        .map(File::from)
        .map_err(|error| Error::System(format!("opening the store's lock: {error}")))?;
    file.lock().map_err(Error::io("waiting for the store's lock"))?;
    Ok(file)
}

/// Opens the regular file `name`, which is one component, right in `dir`; a link is not followed.
pub(crate) fn open(dir: &Dir, name: &str) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file =
        rustix::fs::openat(dir, name, flags, Mode::empty()).map(File::from).map_err(|error| match error {
            Errno::LOOP => {
                Error::Safety(format!("{name} is a symbolic link, which nothing of ours ever makes there"))
            }
            Errno::NOENT => Error::Integrity(format!("{name} is missing")),
            error => Error::System(format!("opening {name}: {error}")),
        })?;
    match file.metadata().map_err(Error::io(format_args!("looking at {name}")))?.is_file() {
        true => Ok(file),
        false => Err(Error::Safety(format!("{name} is not a regular file"))),
    }
}

/// Opens the directory `name` right in `dir`; a link is not followed.
pub(crate) fn open_dir(dir: &Dir, name: &str) -> Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Dir::from_std_file(File::from(fd))),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(Error::Safety(format!("{name} is not a directory"))),
        Err(Errno::NOENT) => Err(Error::Integrity(format!("{name} is missing"))),
        Err(error) => Err(Error::System(format!("opening {name}: {error}"))),
    }
}

/// Makes the directory `name`, 0755, unless it is there.
pub(crate) fn make_dir(dir: &Dir, name: &str) -> Result<()> {
    match dir.create_dir_with(name, DirBuilder::new().mode(0o755)) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::System(format!("making directory {name}: {error}")))
        }
        _ => Ok(()),
    }
}

/// Reads all of `file`, which may not be longer than `most`.
pub(crate) fn read_bounded(file: File, most: u64, what: impl std::fmt::Display) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(Error::io(format_args!("reading {what}")))?;
    match bytes.len() as u64 > most {
        true => Err(Error::Safety(format!("{what} is longer than the {most} bytes allowed"))),
        false => Ok(bytes),
    }
}

/// JSON that says what it is, or damage.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(what: impl std::fmt::Display, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Integrity(format!("{what} is not what it should be: {error}")))
}

/// Refuses a document that could be read as one of two kinds (CVE-2021-41190).
pub(crate) fn refuse_keys(what: impl std::fmt::Display, bytes: &[u8], keys: &[&str]) -> Result<()> {
    let value: serde_json::Value = parse(&what, bytes)?;
    match keys.iter().find(|key| value.get(**key).is_some()) {
        Some(key) => {
            Err(Error::Safety(format!("{what} also has {key:?}: it could be read as two different things")))
        }
        None => Ok(()),
    }
}

/// Writes `name` in `dir`: beside it, synced, renamed. Whatever fails leaves nothing behind.
pub(crate) fn write_verified(
    dir: &Dir,
    name: &str,
    fill: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<()> {
    let partial = format!("{name}.tmp-{}", random());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let doing = |error: std::io::Error| Error::System(format!("writing {name}: {error}"));
    let mut file = rustix::fs::openat(dir, &*partial, flags, Mode::from_raw_mode(0o644))
        .map(File::from)
        .map_err(|error| doing(error.into()))?;
    fill(&mut file)
        // Whatever the umask: a container's own id reads it.
        .and_then(|()| rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644)).map_err(Into::into))
        .and_then(|()| file.sync_all())
        .and_then(|()| dir.rename(&partial, dir, name))
        .and_then(|()| sync(dir))
        .map_err(|error| {
            let _ = dir.remove_file(&partial);
            doing(error)
        })
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
