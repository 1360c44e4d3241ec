//! Push of an image to a registry: first the blobs that it does not have, last the manifest. Blobs are sent unchanged, so the digest stays.

use std::io::{self, Read};

use invarlock_error::Context as _;

use super::local::LocalImages;
use super::remote::{Document, MAX_CONNECTIONS, Remote};
use super::resolve;
use crate::cas::{Blob, BlobSource};
use crate::oci::{Digest, Hashing};
use crate::progress::TransferProgress;
use crate::reference::{Reference, RegistryName};
use crate::{Error, Result, parallel};

impl LocalImages {
    /// Pushes an image to `remote` under the name `to`. Returns the digest of the manifest.
    pub fn push(
        &self,
        reference: &Reference,
        to: &RegistryName,
        remote: &dyn Remote,
        progress: TransferProgress<'_>,
    ) -> Result<Digest> {
        let (Some(tag), None) = (&to.tag, to.digest) else {
            return Err(Error::input(format!("{to}: an image is pushed to a tag, without a digest")));
        };
        // The blobs must not be deleted while they are sent.
        let _lock = self.layout.lock_shared()?;
        self.with_source(reference, |source| {
            let descriptor = resolve::manifest_descriptor(source, reference)?;
            let image = resolve::resolve(source, reference)?;
            let manifest = source.json(&image.manifest_digest, image.manifest_size)?;
            let mut blobs: Vec<(Digest, u64)> =
                image.layers.iter().map(|layer| (layer.digest, layer.size)).collect();
            blobs.push((image.config_digest, image.config_size));
            blobs.sort_unstable();
            blobs.dedup();
            parallel::for_each_limited(MAX_CONNECTIONS, &blobs, |(digest, size)| {
                push_blob(source, remote, digest, *size).with_context(|| format!("blob {digest}"))?;
                progress(*size, image.bytes);
                Ok(())
            })?;
            let media_type = descriptor.media_type().to_string();
            remote.put_manifest(tag, &Document { media_type, bytes: manifest })?;
            progress(image.manifest_size, image.bytes);
            Ok(image.manifest_digest)
        })
        .with_context(|| format!("pushing to {to}"))
    }
}

fn push_blob(source: &dyn BlobSource, remote: &dyn Remote, digest: &Digest, size: u64) -> Result<()> {
    if remote.has_blob(digest, size)? {
        return Ok(());
    }
    let open = || -> Result<Box<dyn Read>> {
        Ok(Box::new(VerifyingReader {
            blob: Hashing::new(source.blob(digest, size)?),
            remaining: size,
            digest: *digest,
        }))
    };
    match remote.put_blob(digest, size, &open) {
        // A corrupt blob explains every other error.
        Err(error) if !source.has_valid_blob(digest, size) => Err(Error::integrity(format!(
            "it was altered or is corrupt in the source, and was not sent completely ({error})"
        ))),
        other => other,
    }
}

/// Reads a blob, and fails instead of returning its last bytes if the digest is wrong.
struct VerifyingReader {
    blob: Hashing<Blob>,
    remaining: u64,
    digest: Digest,
}

impl Read for VerifyingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read(buffer)?;
        self.remaining -= read as u64;
        if self.remaining == 0 && read > 0 {
            let (_, _, found) =
                std::mem::replace(&mut self.blob, Hashing::new(Blob::memory(Vec::new()))).finish();
            if found != self.digest {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the bytes do not have their digest"));
            }
        }
        Ok(read)
    }
}
