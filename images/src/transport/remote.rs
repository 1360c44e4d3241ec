//! The registry operations that pull and push need. Responses are untrusted.

use std::io::Read;

use crate::Result;
use crate::cas::Sink;
use crate::oci::Digest;

/// Most blobs that are transferred in parallel.
pub(super) const MAX_CONNECTIONS: usize = 4;

/// A manifest or index.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Opens a blob to be sent; called once per attempt.
pub type Opener<'a> = &'a (dyn Fn() -> Result<Box<dyn Read>> + Sync);

/// One repository of a registry.
pub trait Remote: Sync {
    /// Downloads the manifest or index with this tag or digest, of at most `limit` bytes.
    fn manifest(&self, tag_or_digest: &str, limit: u64) -> Result<Document>;

    /// Downloads a blob to `to`, which may already have the first bytes.
    fn blob(&self, digest: &Digest, size: u64, to: &mut dyn Sink) -> Result<()>;

    /// Whether the registry has a blob.
    fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool>;

    /// Uploads a blob.
    fn put_blob(&self, digest: &Digest, size: u64, open: Opener<'_>) -> Result<()>;

    /// Uploads a manifest and gives it a tag.
    fn put_manifest(&self, tag: &str, document: &Document) -> Result<()>;
}
