//! An image from elsewhere into the store: its blobs byte for byte, so that its digest stays, and its layers unpacked.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::blobs::{Blob, Blobs, LayerReader};
use crate::layout::Held;
use crate::manage::{bare, plain_tag};
use crate::policy::Policy;
use crate::resolve::{self, Layer, ResolvedImage, platform};
use crate::{Digest, Error, Reference, Result, Store, parallel};

/// An image that was imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Imported {
    /// What means it in the store: the name it was given, else its digest.
    pub reference: String,
    /// The manifest's digest.
    pub manifest_digest: Digest,
    /// Size of all its blobs.
    pub bytes: u64,
}

/// Told how many further bytes are done.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

impl Store {
    /// Imports the image that `reference` means under the name `tag`, or under none: names that an image brings along are not taken
    /// over, since they could be somebody else's here. It has its name only when it is whole, unpacked and on disk. What a failure leaves
    /// of it goes when the store is tidied up.
    pub fn import(
        &self,
        reference: &Reference,
        tag: Option<&str>,
        policy: Policy,
        progress: Progress<'_>,
    ) -> Result<Imported> {
        let tag = tag.map(plain_tag).transpose()?;
        if matches!(reference, Reference::Registry(_)) {
            return Err(Error::input(format!(
                "{reference} is an image of a registry, which is pulled: `invarlock runtime image pull {reference} --allow-network`"
            )));
        }
        let told = AtomicU64::new(0);
        let progress: Progress<'_> = &|count| {
            told.fetch_add(count, Ordering::Relaxed);
            progress(count);
        };
        self.with_source(reference, |source| {
            let mut descriptor = bare(&resolve::descriptor(source, reference)?)?;
            let image = resolve::resolve(source, reference)?;
            let held = self.layout.shared()?;
            // A layer that is not there is unpacked while it is copied; whether that is needed for one that is, the copying finds out.
            let there = |layer: &Layer| self.layout.blob_size(&layer.digest).is_some();
            copy_layers(source, &held, image.layers.iter().filter(|it| there(it)), progress)?;
            drop(self.unpacked(&Copying { source, to: &held, progress }, &image, policy)?);
            // The trees of others were there.
            copy_layers(source, &held, image.layers.iter().filter(|it| !there(it)), progress)?;
            copy_rest(source, &held, &image, progress)?;
            // What comes twice in it, and what others wrote meanwhile.
            progress(image.bytes.saturating_sub(told.load(Ordering::Relaxed)));
            let ours = ResolvedImage { reference: Reference::Digest(image.manifest_digest), ..image };
            descriptor["platform"] = platform();
            held.sync()?;
            held.tag(tag.as_deref(), descriptor)?;
            Ok(Imported {
                reference: tag.unwrap_or_else(|| ours.manifest_digest.to_string()),
                manifest_digest: ours.manifest_digest,
                bytes: ours.bytes,
            })
        })
    }
}

/// Copies all blobs of an image, several at once, the manifest last.
pub(crate) fn copy_blobs(
    source: &dyn Blobs,
    to: &Held<'_>,
    image: &ResolvedImage,
    progress: Progress<'_>,
) -> Result<()> {
    copy_layers(source, to, &image.layers, progress)?;
    copy_rest(source, to, image, progress)
}

fn copy_layers<'a>(
    source: &dyn Blobs,
    to: &Held<'_>,
    layers: impl IntoIterator<Item = &'a Layer>,
    progress: Progress<'_>,
) -> Result<()> {
    let layers: Vec<&Layer> = layers.into_iter().collect();
    parallel::each(&layers, |layer| copy(source, to, &layer.digest, layer.size, progress))
}

fn copy_rest(source: &dyn Blobs, to: &Held<'_>, image: &ResolvedImage, progress: Progress<'_>) -> Result<()> {
    copy(source, to, &image.config_digest, image.config_size, progress)?;
    copy(source, to, &image.manifest_digest, image.manifest_size, progress)
}

fn copy(source: &dyn Blobs, to: &Held<'_>, digest: &Digest, size: u64, progress: Progress<'_>) -> Result<()> {
    let mut blob = source.blob(digest, size)?;
    let mut told = 0;
    to.put(digest, size, |to| {
        copy_with(&mut blob, to, &mut |count| {
            told += count;
            progress(count);
        })
    })?;
    // What was there already.
    progress(size - told.min(size));
    Ok(())
}

/// Where an image is imported from. Layers that are read of it are in the store afterwards: their bytes are read once, and hashed once.
struct Copying<'a> {
    source: &'a dyn Blobs,
    to: &'a Held<'a>,
    progress: Progress<'a>,
}

impl Blobs for Copying<'_> {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        self.source.index_bytes()
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        self.source.open(digest)
    }

    fn layer(&self, layer: &Layer, work: &mut dyn FnMut(&mut LayerReader<'_>) -> Result<()>) -> Result<()> {
        let mut blob = Told { from: self.source.blob(&layer.digest, layer.size)?, progress: self.progress };
        match self.to.layout.blob_size(&layer.digest) {
            // It was told of when it was found there.
            Some(_) => work(&mut blob.from),
            None => self.to.put_while(&layer.digest, &mut blob, work),
        }
    }
}

/// What is read of it is told.
struct Told<'a> {
    from: Blob,
    progress: Progress<'a>,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        (self.progress)(read as u64);
        Ok(read)
    }
}

fn copy_with(from: &mut dyn Read, to: &mut dyn Write, told: &mut dyn FnMut(u64)) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                told(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
