//! Import of an image from a layout or archive. Blobs are copied unchanged, so the digest of the image stays, and layers are extracted.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::local::{LocalImages, needed_consent};
use super::resolve::{self, ResolvedImage};
use crate::cas::{Blob, BlobSource, LayerReader, LockedLayout};
use crate::layer::Policy;
use crate::oci::descriptor::{platform, without_annotations};
use crate::oci::{Digest, Layer};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::{Error, Result, parallel};

/// An image that was imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Imported {
    /// Its reference in the store: the tag it was given, otherwise its digest.
    pub reference: String,
    /// The manifest's digest.
    pub manifest_digest: Digest,
    /// Size of all blobs in bytes.
    pub bytes: u64,
    /// The configuration names no architecture or no operating system; those of this machine were assumed.
    pub platform_assumed: bool,
}

impl LocalImages {
    /// Imports an image under the name `tag`, or without a name: names in the source are ignored, since the store can use them for other
    /// images. The image gets its name when it is complete, extracted and on disk. `gc` deletes what a failure leaves.
    pub fn import(
        &self,
        reference: &Reference,
        tag: Option<&str>,
        policy: Policy,
        progress: Progress<'_>,
    ) -> Result<Imported> {
        let tag = tag.map(Reference::parse_new_tag).transpose()?;
        if matches!(reference, Reference::Registry(_)) {
            return Err(Error::input(format!("{reference} is an image of a registry")).with_hint(format!(
                "pull it with `invarlock runtime image pull {reference} --allow-network`"
            )));
        }
        let done = AtomicU64::new(0);
        let progress: Progress<'_> = &|count| {
            done.fetch_add(count, Ordering::Relaxed);
            progress(count);
        };
        self.with_source(reference, |source| {
            let mut descriptor = without_annotations(&resolve::manifest_descriptor(source, reference)?)?;
            let image = resolve::resolve(source, reference)?;
            let layout = self.layout.lock_shared()?;
            // Layers whose blobs exist are verified first. The others are extracted while they are copied.
            let exists = |layer: &Layer| self.layout.blob_size(&layer.digest).is_some();
            copy_layers(source, &layout, image.layers.iter().filter(|layer| exists(layer)), progress)?;
            let copying = CopyingSource { source, layout: &layout, progress };
            let extracted = self.extracted(&copying, &image, policy)?;
            needed_consent(&image.layers, &extracted, policy).add_to(&mut descriptor);
            // Layers that were extracted before were not read above.
            copy_layers(source, &layout, image.layers.iter().filter(|layer| !exists(layer)), progress)?;
            copy_rest(source, &layout, &image, progress)?;
            // Duplicate layers, and layers that another process wrote meanwhile.
            progress(image.bytes.saturating_sub(done.load(Ordering::Relaxed)));
            descriptor["platform"] = platform();
            layout.sync()?;
            layout.tag(tag.as_deref(), descriptor)?;
            Ok(Imported {
                reference: tag.unwrap_or_else(|| image.manifest_digest.to_string()),
                manifest_digest: image.manifest_digest,
                bytes: image.bytes,
                platform_assumed: image.is_platform_assumed,
            })
        })
    }
}

/// Copies all blobs of an image, several in parallel, the manifest last.
pub(crate) fn copy_blobs(
    source: &dyn BlobSource,
    layout: &LockedLayout<'_>,
    image: &ResolvedImage,
    progress: Progress<'_>,
) -> Result<()> {
    copy_layers(source, layout, &image.layers, progress)?;
    copy_rest(source, layout, image, progress)
}

fn copy_layers<'a>(
    source: &dyn BlobSource,
    layout: &LockedLayout<'_>,
    layers: impl IntoIterator<Item = &'a Layer>,
    progress: Progress<'_>,
) -> Result<()> {
    let layers: Vec<&Layer> = layers.into_iter().collect();
    parallel::for_each(&layers, |layer| copy(source, layout, &layer.digest, layer.size, progress))
}

fn copy_rest(
    source: &dyn BlobSource,
    layout: &LockedLayout<'_>,
    image: &ResolvedImage,
    progress: Progress<'_>,
) -> Result<()> {
    copy(source, layout, &image.config_digest, image.config_size, progress)?;
    copy(source, layout, &image.manifest_digest, image.manifest_size, progress)
}

fn copy(
    source: &dyn BlobSource,
    layout: &LockedLayout<'_>,
    digest: &Digest,
    size: u64,
    progress: Progress<'_>,
) -> Result<()> {
    let mut blob = source.blob(digest, size)?;
    let mut done = 0;
    layout.write_blob(digest, size, |file| {
        copy_bytes(&mut blob, file, &mut |count| {
            done += count;
            progress(count);
        })
    })?;
    // A blob that existed was not copied.
    progress(size - done.min(size));
    Ok(())
}

/// A source whose layers are copied to the store while they are read, so that their bytes are read and hashed once.
struct CopyingSource<'a> {
    source: &'a dyn BlobSource,
    layout: &'a LockedLayout<'a>,
    progress: Progress<'a>,
}

impl BlobSource for CopyingSource<'_> {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        self.source.index_bytes()
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        self.source.open(digest)
    }

    fn read_layer(
        &self,
        layer: &Layer,
        read: &mut dyn FnMut(&mut LayerReader<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut blob = self.source.blob(&layer.digest, layer.size)?;
        match self.layout.layout.blob_size(&layer.digest) {
            // Its progress was reported when the existing blob was verified.
            Some(_) => read(&mut blob),
            None => {
                let mut blob = ProgressReader { blob, progress: self.progress };
                self.layout.write_blob_while_reading(&layer.digest, &mut blob, read)
            }
        }
    }
}

/// Reports the bytes that are read.
struct ProgressReader<'a> {
    blob: Blob,
    progress: Progress<'a>,
}

impl Read for ProgressReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read(buffer)?;
        (self.progress)(read as u64);
        Ok(read)
    }
}

fn copy_bytes(
    source: &mut dyn Read,
    target: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                target.write_all(&buffer[..count])?;
                progress(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
