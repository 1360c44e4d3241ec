//! An OCI image layout in a directory: blobs by digest and an index. Everything is read and written through one directory handle.
//!
//! # Locks
//!
//! Adding to a layout, and long use of it, takes a shared lock of its directory; deleting takes an exclusive one. The index is changed
//! under the lock of the directory of blobs.

use invarlock_error::Context as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::{FlockOperation, Mode, OFlags, syncfs};
use rustix::io::Errno;
use serde_json::Value;

use super::blobs::{Blob, BlobSource, LayerReader};
use super::files::{
    ensure_dir, open, open_dir, read_bounded, write_atomic, write_bytes, write_durable,
    write_named_by_content,
};
use super::locks;
use crate::hooks::step;
use crate::oci::Consent;
use crate::oci::descriptor::{CHOSEN_FROM, TAG, is_untagged};
use crate::oci::json::{MAX_DOCUMENT, parse, to_bytes};
use crate::oci::{Digest, Hashing};
use crate::{Error, Result};

/// The content of `oci-layout`.
pub(crate) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const EMPTY_INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// An OCI image layout.
#[derive(Debug)]
pub(crate) struct Layout {
    dir: Dir,
    blobs: Dir,
}

/// A layout whose lock is held, to which images can be added.
pub(crate) struct LockedLayout<'a> {
    pub layout: &'a Layout,
    _lock: File,
}

impl Layout {
    /// Opens the layout in the directory `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let dir = match Dir::open_ambient_dir(path, ambient_authority()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::input(format!("image layout {} not found", path.display()))
                    .with_hint("check the path; a relative path starts at the current directory"));
            }
            other => other.with_context(|| format!("opening image layout {}", path.display()))?,
        };
        Self::from_dir(dir).with_context(|| format!("image layout {}", path.display()))
    }

    fn from_dir(dir: Dir) -> Result<Self> {
        check_version(&read_bounded(open(&dir, "oci-layout")?, 4096, "oci-layout")?)?;
        let blobs = open_dir(&open_dir(&dir, "blobs")?, "sha256")?;
        Ok(Self { dir, blobs })
    }

    /// Opens the layout in `dir`, which is created if the directory is empty.
    pub fn open_or_create(dir: Dir) -> Result<Self> {
        let exists = |name: &str| dir.symlink_metadata(name).is_ok();
        if !(exists("oci-layout") && exists("index.json") && exists("blobs/sha256")) {
            let _lock = lock(&dir, FlockOperation::LockExclusive)?;
            ensure_dir(&dir, "blobs")?;
            ensure_dir(&open_dir(&dir, "blobs")?, "sha256")?;
            if !exists("index.json") {
                write_bytes(&dir, "index.json", EMPTY_INDEX.as_bytes())?;
            }
            if !exists("oci-layout") {
                write_bytes(&dir, "oci-layout", LAYOUT.as_bytes())?;
            }
        }
        Self::from_dir(dir)
    }

    /// The directory of the layout.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The directory of the blobs.
    pub fn blobs_dir(&self) -> &Dir {
        &self.blobs
    }

    /// Waits until no process deletes, and prevents it.
    pub fn lock_shared(&self) -> Result<LockedLayout<'_>> {
        Ok(LockedLayout { layout: self, _lock: lock(&self.dir, FlockOperation::LockShared)? })
    }

    /// Waits until no other process adds to or uses the layout, and prevents it.
    pub fn lock_exclusive(&self) -> Result<LockedLayout<'_>> {
        Ok(LockedLayout { layout: self, _lock: lock(&self.dir, FlockOperation::LockExclusive)? })
    }

    /// The layout with its current index, which later changes do not affect.
    pub fn snapshot(&self) -> Result<Snapshot<'_>> {
        Ok(Snapshot { layout: self, index: self.index_bytes()? })
    }

    /// The size of a blob, if it exists.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        self.blobs.symlink_metadata(digest.hex()).ok().filter(|blob| blob.is_file()).map(|blob| blob.len())
    }
}

impl BlobSource for Layout {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        read_bounded(open(&self.dir, "index.json")?, MAX_DOCUMENT, "index.json")
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        Blob::whole(open(&self.blobs, &digest.hex())?).context("reading its metadata")
    }
}

/// A layout with an index that does not change, from [`Layout::snapshot`]. Its blobs exist as long as the lock of the layout is held.
pub(crate) struct Snapshot<'a> {
    layout: &'a Layout,
    index: Vec<u8>,
}

impl BlobSource for Snapshot<'_> {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.index.clone())
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        self.layout.open(digest)
    }
}

impl LockedLayout<'_> {
    /// Writes a blob that must have the digest `expected`, unless it exists with the right bytes. It is durable after
    /// [`LockedLayout::sync`]. A blob that lost its bytes in a power failure is detected by its digest and written again.
    pub fn write_blob(
        &self,
        expected: &Digest,
        size: u64,
        fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        if self.layout.has_valid_blob(expected, size) {
            return Ok(());
        }
        write_atomic(&self.layout.blobs, &expected.hex(), |file| {
            // A source that is too long is not read further.
            let mut hashing = Hashing::bounded(file, size);
            let filled = fill(&mut hashing);
            let (_, count, digest) = hashing.finish();
            if count > size || filled.is_ok() && (count, &digest) != (size, expected) {
                return Err(Error::integrity(format!(
                    "writing blob {expected} of {size} bytes: its source has {count} or more bytes with digest {digest}: it was altered, \
                     is corrupt, or changed while it was read"
                )));
            }
            filled.with_context(|| format!("writing blob {expected}"))?;
            step("store: blob written");
            Ok(())
        })?;
        step("store: blob named");
        Ok(())
    }

    /// Writes the blob `source` while `read` reads it. `read` must read all of it and verify the digest `expected`.
    pub fn write_blob_while_reading(
        &self,
        expected: &Digest,
        source: &mut LayerReader<'_>,
        read: &mut dyn FnMut(&mut LayerReader<'_>) -> Result<()>,
    ) -> Result<()> {
        write_atomic(&self.layout.blobs, &expected.hex(), |file| {
            let mut tee = Tee { source, file, write_error: None };
            let result = read(&mut tee);
            if let Some(error) = tee.write_error {
                return Err(error).with_context(|| format!("writing blob {expected}"));
            }
            result?;
            step("store: blob written");
            Ok(())
        })?;
        step("store: blob named");
        Ok(())
    }

    /// Writes a blob whose digest is not known before. Returns its digest and size.
    pub fn write_new_blob<T>(
        &self,
        fill: impl FnOnce(&mut dyn Write) -> Result<T>,
    ) -> Result<(T, Digest, u64)> {
        let added = write_named_by_content(&self.layout.blobs, "new-blob", |file| {
            let mut hashing = Hashing::new(file);
            let filled = fill(&mut hashing)?;
            let (_, size, digest) = hashing.finish();
            Ok(((filled, digest, size), digest.hex()))
        })?;
        step("store: blob named");
        Ok(added)
    }

    /// Writes a small blob.
    pub fn write_bytes(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.write_blob(&digest, bytes.len() as u64, |file| file.write_all(bytes))?;
        Ok(digest)
    }

    /// Makes all written blobs durable.
    pub fn sync(&self) -> Result<()> {
        syncfs(&self.layout.blobs).context("syncing blobs")
    }

    /// Gives `tag` to the manifest of `descriptor` (JSON); any other manifest loses it. Without a tag the manifest is only listed.
    pub fn tag(&self, tag: Option<&str>, mut descriptor: Value) -> Result<()> {
        let digest = descriptor["digest"].clone();
        let from = descriptor["annotations"][CHOSEN_FROM].clone();
        if let Some(tag) = tag {
            descriptor["annotations"][TAG] = tag.into();
        }
        self.edit_index(|manifests| {
            // The agreement is about the image, so that no other name of it loses it.
            let same_image = manifests.iter().filter(|entry| entry["digest"] == digest);
            let consent = same_image.map(Consent::of_json).fold(Consent::of_json(&descriptor), Consent::and);
            consent.add_to(&mut descriptor);
            let chosen_from = |entry: &Value| entry["annotations"][CHOSEN_FROM].clone();
            let is_same =
                |entry: &Value| entry["digest"] == digest && (from.is_null() || chosen_from(entry) == from);
            if tag.is_none() && manifests.iter().any(is_same) {
                manifests.iter_mut().filter(|entry| is_same(entry)).for_each(|entry| consent.add_to(entry));
                return;
            }
            manifests.retain(|entry| {
                // An entry that was chosen from another index stays: the image is also found by the digest of that index.
                let is_superseded = is_untagged(entry)
                    && entry["digest"] == digest
                    && (chosen_from(entry).is_null() || chosen_from(entry) == from);
                !is_superseded && tag.is_none_or(|tag| entry["annotations"][TAG] != tag)
            });
            manifests.push(descriptor);
        })
    }

    /// Changes the list of manifests in the index.
    pub fn edit_index(&self, edit: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        let _lock = lock(&self.layout.blobs, FlockOperation::LockExclusive)?;
        let mut index: Value = parse("index.json", &self.layout.index_bytes()?)?;
        let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(Error::integrity("index.json has no list of manifests"));
        };
        let before = manifests.clone();
        edit(manifests);
        if *manifests == before {
            return Ok(());
        }
        let text = to_bytes(&index).context("index.json")?;
        if text.len() as u64 > MAX_DOCUMENT {
            return Err(Error::input(format!("index.json would be longer than {MAX_DOCUMENT} bytes"))
                .with_hint("remove images with `invarlock runtime image rm`"));
        }
        write_durable(&self.layout.dir, "index.json", |file| {
            file.write_all(&text).context("writing index.json")?;
            step("store: index written");
            Ok(())
        })?;
        step("store: index named");
        Ok(())
    }
}

/// A reader that writes everything it reads to a file.
struct Tee<'a> {
    source: &'a mut LayerReader<'a>,
    file: &'a mut File,
    /// Why the file could not be written. It takes precedence over what the reader makes of its own, less specific error.
    write_error: Option<std::io::Error>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.source.read(buffer)?;
        if self.write_error.is_none() {
            self.write_error = self.file.write_all(&buffer[..read]).err();
        }
        match &self.write_error {
            Some(error) => Err(error.kind().into()),
            None => Ok(read),
        }
    }
}

/// Checks that the bytes of `oci-layout` name the supported version.
pub(crate) fn check_version(bytes: &[u8]) -> Result<()> {
    let version: Value = parse("oci-layout", bytes)?;
    match version.get("imageLayoutVersion").and_then(Value::as_str) {
        Some("1.0.0") => Ok(()),
        other => Err(Error::unsupported(format!("oci-layout has version {other:?}; supported: 1.0.0"))),
    }
}

/// Takes the lock of a directory, which the returned file holds. On a file system without such locks, on which a store is refused but to
/// which an image can be exported, nothing is locked.
fn lock(dir: &Dir, operation: FlockOperation) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, ".", flags, Mode::empty())
        .map(File::from)
        .context("opening a layout to lock it")?;
    match locks::take(&file, operation) {
        Ok(()) | Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP) => Ok(file),
        Err(error) => Err(error).context("waiting for the lock of a layout"),
    }
}
