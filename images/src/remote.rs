//! What pulling and pushing need of a registry. Whoever may open sockets makes one; nothing it says is believed here.

use std::io::Read;

use crate::{Digest, Result};

/// Told how many further bytes are done, and how many there are altogether.
pub type OfTotal<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// A manifest or an index as a registry gave it.
#[derive(Clone, Debug)]
pub struct Document {
    /// What it says it is.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Opens a blob to be sent, as often as that must be tried.
pub type Opener<'a> = &'a (dyn Fn() -> Result<Box<dyn Read>> + Sync);

/// Where the bytes of a blob go, in their order.
pub trait Sink {
    /// How many there are already: what an earlier try left.
    fn have(&self) -> u64;

    /// Throws them away, because they cannot be gone on with.
    fn restart(&mut self) -> Result<()>;

    /// Takes further ones. More than the blob has are refused.
    fn take(&mut self, bytes: &[u8]) -> Result<()>;
}

/// One repository of a registry.
pub trait Remote: Sync {
    /// The manifest or index that a tag or digest means, of at most `most` bytes.
    fn manifest(&self, tag_or_digest: &str, most: u64) -> Result<Document>;

    /// Gives the bytes of a blob to `to`, from where that is on.
    fn blob(&self, digest: &Digest, size: u64, to: &mut dyn Sink) -> Result<()>;

    /// Whether the registry has a blob.
    fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool>;

    /// Sends a blob.
    fn put_blob(&self, digest: &Digest, size: u64, open: Opener<'_>) -> Result<()>;

    /// Lets `tag` mean a manifest.
    fn put_manifest(&self, tag: &str, document: &Document) -> Result<()>;
}
