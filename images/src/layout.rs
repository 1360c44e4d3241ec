//! An OCI image layout: blobs by digest and an index of what they mean. Everything is read and written below one directory handle.
//!
//! # Locks
//!
//! Whoever adds to a layout or uses it for long holds the lock of its directory together with others; whoever takes away from it holds it
//! alone. The index is changed under the lock of the directory of blobs. Both go with the process that holds them, and leave no file.

use invarlock_error::Context as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, syncfs};
use rustix::io::Errno;
use serde_json::Value;

use crate::blobs::{Blob, Blobs, LONGEST_JSON, LayerReader, TAG};
use crate::digest::Hashing;
use crate::files::{
    make_dir, open, open_dir, parse, read_bounded, write_beside, write_bytes, write_then_name, write_verified,
};
use crate::hooks::step;
use crate::resolve::CHOSEN_FROM;
use crate::{Digest, Error, Result};

pub(crate) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
pub(crate) const EMPTY_INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

#[derive(Debug)]
pub(crate) struct Layout {
    dir: Dir,
    blobs: Dir,
}

/// A layout whose lock is held.
pub(crate) struct Held<'a> {
    pub layout: &'a Layout,
    _lock: File,
}

impl Layout {
    /// Opens the layout in `dir`, which must be one.
    pub fn open(path: &Path) -> Result<Self> {
        let dir = Dir::open_ambient_dir(path, ambient_authority()).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::input(format!("image layout {} is not there", path.display()))
            }
            _ => Error::system(format!("opening image layout {}: {error}", path.display())),
        })?;
        Self::in_dir(dir).map_err(|error| error.context(format_args!("image layout {}", path.display())))
    }

    fn in_dir(dir: Dir) -> Result<Self> {
        is_version_known(&read_bounded(open(&dir, "oci-layout")?, 4096, "oci-layout")?)?;
        let blobs = open_dir(&open_dir(&dir, "blobs")?, "sha256")?;
        Ok(Self { dir, blobs })
    }

    /// Opens the layout in `dir`, and makes it one first where it is empty.
    pub fn open_or_create(dir: Dir) -> Result<Self> {
        let there = |name: &str| dir.symlink_metadata(name).is_ok();
        if !(there("oci-layout") && there("index.json") && there("blobs/sha256")) {
            let _lock = lock(&dir, FlockOperation::LockExclusive)?;
            make_dir(&dir, "blobs")?;
            make_dir(&open_dir(&dir, "blobs")?, "sha256")?;
            if !there("index.json") {
                write_bytes(&dir, "index.json", EMPTY_INDEX.as_bytes())?;
            }
            if !there("oci-layout") {
                write_bytes(&dir, "oci-layout", LAYOUT.as_bytes())?;
            }
        }
        Self::in_dir(dir)
    }

    /// The layout's directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The directory of its blobs.
    pub fn blobs(&self) -> &Dir {
        &self.blobs
    }

    /// Waits until nobody takes away.
    pub fn shared(&self) -> Result<Held<'_>> {
        Ok(Held { layout: self, _lock: lock(&self.dir, FlockOperation::LockShared)? })
    }

    /// Waits until nobody else adds or uses.
    pub fn alone(&self) -> Result<Held<'_>> {
        Ok(Held { layout: self, _lock: lock(&self.dir, FlockOperation::LockExclusive)? })
    }

    /// The layout with its index as it is now, whatever becomes of that meanwhile.
    pub fn frozen(&self) -> Result<Frozen<'_>> {
        Ok(Frozen { layout: self, index: self.index_bytes()? })
    }

    /// The size of a blob that is there.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        self.blobs.symlink_metadata(digest.hex()).ok().filter(|it| it.is_file()).map(|it| it.len())
    }
}

impl Blobs for Layout {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        read_bounded(open(&self.dir, "index.json")?, LONGEST_JSON, "index.json")
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        Blob::whole(open(&self.blobs, &digest.hex())?).context("looking at it")
    }
}

/// What [`Layout::frozen`] gives. Blobs stay as long as the layout's lock is held.
pub(crate) struct Frozen<'a> {
    layout: &'a Layout,
    index: Vec<u8>,
}

impl Blobs for Frozen<'_> {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.index.clone())
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        self.layout.open(digest)
    }
}

impl Held<'_> {
    /// Writes a blob whose digest must come out as `expected`, unless it is there and sound. It lasts after [`Held::sync`]; a blob that
    /// a power cut left without its bytes is found by its digest, and written anew.
    pub fn put(
        &self,
        expected: &Digest,
        size: u64,
        fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        if self.layout.holds(expected, size) {
            return Ok(());
        }
        write_beside(&self.layout.blobs, &expected.hex(), |file| {
            // A source that is longer stops here.
            let mut hashing = Hashing::bounded(file, size);
            let filled = fill(&mut hashing);
            let (_, count, digest) = hashing.finish();
            if count > size || filled.is_ok() && (count, &digest) != (size, expected) {
                return Err(Error::integrity(format!(
                    "writing blob {expected} of {size} bytes: its source holds {count} or more with digest {digest}: it was altered, \
                     is damaged, or changed meanwhile"
                )));
            }
            filled.context(format_args!("writing blob {expected}"))?;
            step("store: blob written");
            Ok(())
        })?;
        step("store: blob named");
        Ok(())
    }

    /// Writes the blob that `from` gives, while `work` reads it from there. What `work` says of its digest goes.
    pub fn put_while(
        &self,
        expected: &Digest,
        from: &mut LayerReader<'_>,
        work: &mut dyn FnMut(&mut LayerReader<'_>) -> Result<()>,
    ) -> Result<()> {
        write_beside(&self.layout.blobs, &expected.hex(), |to| {
            let mut passing = Passing { from, to, failed: None };
            let worked = work(&mut passing);
            if let Some(error) = passing.failed {
                return Err(Error::from(error).context(format_args!("writing blob {expected}")));
            }
            worked?;
            step("store: blob written");
            Ok(())
        })?;
        step("store: blob named");
        Ok(())
    }

    /// Writes a blob whose digest shows when it is written; gives that and its size.
    pub fn add<T>(&self, fill: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<(T, Digest, u64)> {
        let added = write_then_name(&self.layout.blobs, "new-blob", |file| {
            let mut hashing = Hashing::new(file);
            let filled = fill(&mut hashing)?;
            let (_, size, digest) = hashing.finish();
            Ok(((filled, digest, size), digest.hex()))
        })?;
        step("store: blob named");
        Ok(added)
    }

    /// Makes blobs last, all at once.
    pub fn sync(&self) -> Result<()> {
        syncfs(&self.layout.blobs).map_err(|error| Error::system(format!("syncing blobs: {error}")))
    }

    /// Makes `tag` mean the manifest described by `descriptor` (JSON), and nothing else. Without a tag the manifest is just listed.
    pub fn tag(&self, tag: Option<&str>, mut descriptor: Value) -> Result<()> {
        let digest = descriptor["digest"].clone();
        let from = descriptor["annotations"][CHOSEN_FROM].clone();
        if let Some(tag) = tag {
            descriptor["annotations"][TAG] = tag.into();
        }
        self.edit_index(|manifests| {
            let chosen_from = |it: &Value| it["annotations"][CHOSEN_FROM].clone();
            let says_so = |it: &Value| it["digest"] == digest && (from.is_null() || chosen_from(it) == from);
            if tag.is_none() && manifests.iter().any(says_so) {
                return;
            }
            manifests.retain(|it| {
                // What was chosen from another index is found by that, too.
                let says_no_more = is_untagged(it)
                    && it["digest"] == digest
                    && (chosen_from(it).is_null() || chosen_from(it) == from);
                !says_no_more && tag.is_none_or(|tag| it["annotations"][TAG] != tag)
            });
            manifests.push(descriptor);
        })
    }

    /// Lets `edit` change the list of manifests.
    pub fn edit_index(&self, edit: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        let _lock = lock(&self.layout.blobs, FlockOperation::LockExclusive)?;
        let mut index: Value = parse("index.json", &self.layout.index_bytes()?)?;
        let Some(manifests) = index.get_mut("manifests").and_then(|it| it.as_array_mut()) else {
            return Err(Error::integrity("index.json has no list of manifests"));
        };
        let before = manifests.clone();
        edit(manifests);
        if *manifests == before {
            return Ok(());
        }
        let text = serde_json::to_vec(&index)
            .map_err(|error| Error::system(format!("writing index.json: {error}")))?;
        if text.len() as u64 > LONGEST_JSON {
            return Err(Error::input(format!(
                "index.json would be longer than {LONGEST_JSON} bytes: remove images first"
            )));
        }
        write_verified(&self.layout.dir, "index.json", |file| {
            file.write_all(&text).context("writing index.json")?;
            step("store: index written");
            Ok(())
        })?;
        step("store: index named");
        Ok(())
    }
}

/// What is read of it is written, too.
struct Passing<'a> {
    from: &'a mut LayerReader<'a>,
    to: &'a mut File,
    /// Why no more is written, whoever else is told it.
    failed: Option<std::io::Error>,
}

impl Read for Passing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(buffer)?;
        if self.failed.is_none() {
            self.failed = self.to.write_all(&buffer[..read]).err();
        }
        match &self.failed {
            // Nobody needs the rest.
            Some(error) => Err(error.kind().into()),
            None => Ok(read),
        }
    }
}

pub(crate) fn is_untagged(descriptor: &Value) -> bool {
    descriptor["annotations"][TAG].is_null()
}

/// Whether the bytes of `oci-layout` name the one version that is known.
pub(crate) fn is_version_known(bytes: &[u8]) -> Result<()> {
    let version: Value = parse("oci-layout", bytes)?;
    match version.get("imageLayoutVersion").and_then(|it| it.as_str()) {
        Some("1.0.0") => Ok(()),
        other => Err(Error::unsupported(format!("oci-layout has version {other:?}; 1.0.0 is known"))),
    }
}

/// Takes the lock of a directory; it goes with the file that is returned, and with the process. A file system without such locks, which
/// the store does not lie on, has whoever exports to it see to it that nobody else does.
fn lock(dir: &Dir, how: FlockOperation) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, ".", flags, Mode::empty())
        .map(File::from)
        .map_err(|error| Error::system(format!("opening a layout to lock it: {error}")))?;
    loop {
        match flock(&file, how) {
            Err(Errno::INTR) => {}
            Ok(()) | Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP) => return Ok(file),
            Err(error) => return Err(Error::system(format!("waiting for the lock of a layout: {error}"))),
        }
    }
}
