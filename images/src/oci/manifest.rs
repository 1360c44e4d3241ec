//! What a manifest and its configuration contain, as far as it is used.

use oci_spec::image::{Config, MediaType, RootFs};
use serde::{Deserialize, Serialize};

use super::{Compression, Digest, Hashing};
use crate::{Error, Result};

/// Label of an image: the protocol that its program implements.
pub(crate) const LABEL: &str = "org.invarlock.speaks";
/// Most layers that a run can mount.
pub(crate) const MAX_LAYERS: usize = 128;

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Layer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
}

impl Layer {
    pub(crate) fn new(digest: Digest, size: u64, media_type: &MediaType, diff_id: Digest) -> Self {
        Self { digest, size, media_type: media_type.to_string(), diff_id }
    }

    /// Compares size and digest of the bytes that were read with the descriptor of the blob.
    pub(crate) fn check_blob<T>(&self, read: Hashing<T>) -> Result<()> {
        let (_, size, digest) = read.finish();
        match (size, digest) == (self.size, self.digest) {
            true => Ok(()),
            false => Err(Error::integrity(format!(
                "blob {} contains {size} bytes with digest {digest}: it was altered or is corrupt",
                self.digest
            ))),
        }
    }

    /// The compression that the media type names. It is a claim, which the blob need not keep.
    pub(crate) fn compression(&self) -> Result<Compression> {
        Compression::from_media_type(&self.media_type).ok_or_else(|| {
            Error::unsupported(format!(
                "layer {} has media type {}; supported: those of OCI and Docker for archives, uncompressed or with gzip or zstd",
                self.digest, self.media_type
            ))
        })
    }
}

/// The parts of a configuration that are used. The history is not read: it can be long.
#[derive(Deserialize)]
pub(crate) struct Configuration {
    /// Some writers leave it out.
    #[serde(default)]
    pub architecture: String,
    /// Some writers leave it out.
    #[serde(default)]
    pub os: String,
    pub config: Option<Config>,
    pub rootfs: RootFs,
}
