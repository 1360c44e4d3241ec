//! Blobs by digest and an index of what they mean, wherever they lie. Every byte of them is verified by whoever reads it.

use invarlock_error::Context as _;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use oci_spec::image::ImageIndex;

use crate::digest::Hashing;
use crate::files::{parse, refuse_keys};
use crate::resolve::Layer;
use crate::{Digest, Error, Result};

/// Longest manifest, config or index.
pub(crate) const LONGEST_JSON: u64 = 4 << 20;

pub(crate) const TAG: &str = "org.opencontainers.image.ref.name";

/// The bytes of one blob, in a file of its own or as a part of an archive. Nobody else's reading moves it.
#[derive(Debug)]
pub(crate) struct Blob {
    bytes: Bytes,
    at: u64,
    left: u64,
}

#[derive(Debug)]
enum Bytes {
    File(File),
    Memory(Vec<u8>),
}

impl Blob {
    /// All of a file.
    pub fn whole(file: File) -> io::Result<Self> {
        let left = file.metadata()?.len();
        Ok(Self::part(file, 0, left))
    }

    /// A part of a file.
    pub fn part(file: File, at: u64, left: u64) -> Self {
        Self { bytes: Bytes::File(file), at, left }
    }

    /// Bytes that lie in no file.
    pub fn memory(bytes: Vec<u8>) -> Self {
        Self { at: 0, left: bytes.len() as u64, bytes: Bytes::Memory(bytes) }
    }

    /// Bytes that are left.
    pub fn len(&self) -> u64 {
        self.left
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = match &self.bytes {
            Bytes::File(file) => file.read_at(&mut buffer[..most], self.at)?,
            Bytes::Memory(bytes) => {
                let from = usize::try_from(self.at).map_or(&[][..], |at| bytes.get(at..).unwrap_or_default());
                buffer[..most].copy_from_slice(&from[..most]);
                most
            }
        };
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// What a layer is read from, in whatever thread.
pub(crate) type LayerReader<'a> = dyn Read + Send + 'a;

/// Where images are read from.
pub(crate) trait Blobs: Sync {
    /// The bytes of the index.
    fn index_bytes(&self) -> Result<Vec<u8>>;

    /// Opens a blob of whatever size.
    fn open(&self, digest: &Digest) -> Result<Blob>;

    /// The index.
    fn index(&self) -> Result<ImageIndex> {
        let bytes = self.index_bytes()?;
        refuse_keys("index.json", &bytes, &["layers", "config"])?;
        parse("index.json", &bytes)
    }

    /// Makes a small blob one that can be opened, where it lies somewhere else.
    fn fetch(&self, _: &Digest, _: u64) -> Result<()> {
        Ok(())
    }

    /// Opens a blob that has the size its descriptor says. What is read of it is verified by the caller, through [`Hashing`], or by
    /// [`Blobs::json`].
    fn blob(&self, digest: &Digest, size: u64) -> Result<Blob> {
        let blob = self.open(digest).map_err(|error| error.context(format_args!("blob {digest}")))?;
        match blob.len() == size {
            true => Ok(blob),
            false => Err(Error::integrity(format!(
                "blob {digest} has {} bytes, but its descriptor says {size}",
                blob.len()
            ))),
        }
    }

    /// Has `work` read the blob of a layer, all of it, and verify it.
    fn layer(&self, layer: &Layer, work: &mut dyn FnMut(&mut LayerReader<'_>) -> Result<()>) -> Result<()> {
        work(&mut self.blob(&layer.digest, layer.size)?)
    }

    /// The bytes of a small blob, verified.
    fn json(&self, digest: &Digest, size: u64) -> Result<Vec<u8>> {
        if size > LONGEST_JSON {
            return Err(Error::safety(format!(
                "blob {digest} is said to have {size} bytes; {LONGEST_JSON} are the most for JSON"
            )));
        }
        self.fetch(digest, size)?;
        let mut bytes = Vec::new();
        let mut blob = self.blob(digest, size)?;
        blob.read_to_end(&mut bytes).context(format_args!("reading blob {digest}"))?;
        let found = Digest::of(&bytes);
        match found == *digest && bytes.len() as u64 == size {
            true => Ok(bytes),
            false => Err(Error::integrity(format!(
                "blob {digest} holds bytes with digest {found}: the store was altered or is damaged"
            ))),
        }
    }

    /// Whether the blob is there with the bytes it should have.
    fn holds(&self, digest: &Digest, size: u64) -> bool {
        let mut hashing = Hashing::new(());
        self.blob(digest, size).is_ok_and(|blob| hashing.read_all(blob).is_ok())
            && hashing.finish().2 == *digest
    }
}
