//! An image into a registry, byte for byte, so that its digest stays: blobs that are not there first, the manifest last.

use std::io::{self, Read};

use crate::blobs::{Blob, Blobs};
use crate::digest::Hashing;
use crate::pull::AT_ONCE;
use crate::remote::{Document, OfTotal, Remote};
use crate::{Digest, Error, Reference, RegistryName, Result, Store, parallel, resolve};

impl Store {
    /// Pushes the image that `reference` means, and lets `to` mean it at `remote`. Returns the manifest's digest.
    pub fn push(
        &self,
        reference: &Reference,
        to: &RegistryName,
        remote: &dyn Remote,
        progress: OfTotal<'_>,
    ) -> Result<Digest> {
        let (Some(tag), None) = (&to.tag, to.digest) else {
            return Err(Error::input(format!("{to}: an image is pushed to a tag; its digest is its own")));
        };
        // What is being sent is not taken away.
        let _held = self.layout.shared()?;
        self.with_source(reference, |source| {
            let descriptor = resolve::descriptor(source, reference)?;
            let image = resolve::resolve(source, reference)?;
            let manifest = source.json(&image.manifest_digest, image.manifest_size)?;
            let mut blobs: Vec<(Digest, u64)> = image.layers.iter().map(|it| (it.digest, it.size)).collect();
            blobs.push((image.config_digest, image.config_size));
            blobs.sort_unstable();
            blobs.dedup();
            parallel::each_of_some(AT_ONCE, &blobs, |(digest, size)| {
                put(source, remote, digest, *size)
                    .map_err(|error| error.context(format_args!("blob {digest}")))?;
                progress(*size, image.bytes);
                Ok(())
            })?;
            let media_type = descriptor.media_type().to_string();
            remote.put_manifest(tag, &Document { media_type, bytes: manifest })?;
            progress(image.manifest_size, image.bytes);
            Ok(image.manifest_digest)
        })
        .map_err(|error| error.context(format_args!("pushing to {to}")))
    }
}

fn put(source: &dyn Blobs, remote: &dyn Remote, digest: &Digest, size: u64) -> Result<()> {
    if remote.has_blob(digest, size)? {
        return Ok(());
    }
    let open = || -> Result<Box<dyn Read>> {
        Ok(Box::new(Sound { blob: Hashing::new(source.blob(digest, size)?), left: size, digest: *digest }))
    };
    match remote.put_blob(digest, size, &open) {
        // Whatever came of it: bytes that are not the image's are the reason.
        Err(error) if !source.holds(digest, size) => Err(Error::integrity(format!(
            "it was altered or is damaged here, and was not sent whole ({error})"
        ))),
        other => other,
    }
}

/// A blob whose last bytes are given only where all are what their digest says.
struct Sound {
    blob: Hashing<Blob>,
    left: u64,
    digest: Digest,
}

impl Read for Sound {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read(buffer)?;
        self.left -= read as u64;
        if self.left == 0 && read > 0 {
            let (_, _, found) =
                std::mem::replace(&mut self.blob, Hashing::new(Blob::memory(Vec::new()))).finish();
            if found != self.digest {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the bytes do not have their digest"));
            }
        }
        Ok(read)
    }
}
