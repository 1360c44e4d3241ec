//! Sources of blobs and of the index that refers to them. The reader of a blob verifies its digest.

use invarlock_error::Context as _;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use oci_spec::image::ImageIndex;

use crate::oci::json::{MAX_DOCUMENT, parse, refuse_keys};
use crate::oci::{Digest, Hashing, Layer};
use crate::{Error, Result};

/// The bytes of one blob: a file, a part of an archive, or in memory. Readers of the same file do not affect each other.
#[derive(Debug)]
pub(crate) struct Blob {
    bytes: Bytes,
    offset: u64,
    remaining: u64,
}

#[derive(Debug)]
enum Bytes {
    File(File),
    Memory(Vec<u8>),
}

impl Blob {
    /// The blob that is all of a file.
    pub fn whole(file: File) -> io::Result<Self> {
        let remaining = file.metadata()?.len();
        Ok(Self::part(file, 0, remaining))
    }

    /// The blob that is a part of a file.
    pub fn part(file: File, offset: u64, length: u64) -> Self {
        Self { bytes: Bytes::File(file), offset, remaining: length }
    }

    /// A blob in memory.
    pub fn memory(bytes: Vec<u8>) -> Self {
        Self { offset: 0, remaining: bytes.len() as u64, bytes: Bytes::Memory(bytes) }
    }

    /// The number of bytes not yet read.
    pub fn len(&self) -> u64 {
        self.remaining
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        let read = match &self.bytes {
            Bytes::File(file) => file.read_at(&mut buffer[..length], self.offset)?,
            Bytes::Memory(bytes) => {
                let rest = usize::try_from(self.offset)
                    .map_or(&[][..], |offset| bytes.get(offset..).unwrap_or_default());
                buffer[..length].copy_from_slice(&rest[..length]);
                length
            }
        };
        self.offset += read as u64;
        self.remaining -= read as u64;
        Ok(read)
    }
}

/// A reader of the blob of a layer.
pub(crate) type LayerReader<'a> = dyn Read + Send + 'a;

/// A place from which images are read.
pub(crate) trait BlobSource: Sync {
    /// The bytes of the index.
    fn index_bytes(&self) -> Result<Vec<u8>>;

    /// Opens a blob of any size.
    fn open(&self, digest: &Digest) -> Result<Blob>;

    /// The index.
    fn index(&self) -> Result<ImageIndex> {
        let bytes = self.index_bytes()?;
        refuse_keys("index.json", &bytes, &["layers", "config"])?;
        parse("index.json", &bytes)
    }

    /// Makes sure that a small blob can be opened. A remote source downloads it.
    fn fetch(&self, _: &Digest, _: u64) -> Result<()> {
        Ok(())
    }

    /// Opens a blob, which must have the size in its descriptor. The caller verifies the digest with [`Hashing`], or uses
    /// [`BlobSource::json`].
    fn blob(&self, digest: &Digest, size: u64) -> Result<Blob> {
        let blob = self.open(digest).map_err(|error| error.context(format_args!("blob {digest}")))?;
        match blob.len() == size {
            true => Ok(blob),
            false => Err(Error::integrity(format!(
                "blob {digest} has {} bytes, but {size} according to its descriptor",
                blob.len()
            ))),
        }
    }

    /// Calls `read` with the blob of a layer. `read` must read all of it and verify it.
    fn read_layer(
        &self,
        layer: &Layer,
        read: &mut dyn FnMut(&mut LayerReader<'_>) -> Result<()>,
    ) -> Result<()> {
        read(&mut self.blob(&layer.digest, layer.size)?)
    }

    /// Reads and verifies the blob of a layer.
    fn verify_layer(&self, layer: &Layer) -> Result<()> {
        let mut hashing = Hashing::bounded((), layer.size);
        hashing
            .read_all(self.blob(&layer.digest, layer.size)?)
            .with_context(|| format!("reading blob {}", layer.digest))?;
        layer.check_blob(hashing)
    }

    /// The verified bytes of a small blob.
    fn json(&self, digest: &Digest, size: u64) -> Result<Vec<u8>> {
        if size > MAX_DOCUMENT {
            return Err(Error::safety(format!(
                "blob {digest} has {size} bytes according to its descriptor; at most {MAX_DOCUMENT} are allowed for JSON"
            )));
        }
        self.fetch(digest, size)?;
        let mut bytes = Vec::new();
        let mut blob = self.blob(digest, size)?;
        blob.read_to_end(&mut bytes).with_context(|| format!("reading blob {digest}"))?;
        let found = Digest::of(&bytes);
        match found == *digest && bytes.len() as u64 == size {
            true => Ok(bytes),
            false => Err(Error::integrity(format!(
                "blob {digest} contains bytes with digest {found}: it was altered or is corrupt"
            ))),
        }
    }

    /// Whether the blob exists with the right bytes.
    fn has_valid_blob(&self, digest: &Digest, size: u64) -> bool {
        let mut hashing = Hashing::new(());
        self.blob(digest, size).is_ok_and(|blob| hashing.read_all(blob).is_ok())
            && hashing.finish().2 == *digest
    }
}
