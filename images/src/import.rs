//! An image from elsewhere into the store: its blobs byte for byte, so that its digest stays, and its layers unpacked.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde_json::json;

use crate::blobs::Blobs;
use crate::layout::Held;
use crate::manage::{bare, plain_tag};
use crate::policy::Policy;
use crate::resolve::{self, ResolvedImage, architecture};
use crate::{Digest, Reference, Result, Store, parallel};

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
        self.with_source(reference, |source| {
            let mut descriptor = bare(&resolve::descriptor(source, reference)?)?;
            let image = resolve::resolve(source, reference)?;
            let held = self.layout.shared()?;
            copy_blobs(source, &held, &image, progress)?;
            let ours = ResolvedImage { reference: Reference::Digest(image.manifest_digest), ..image };
            drop(self.unpacked(&self.layout, &ours, policy)?);
            descriptor["platform"] = json!({ "architecture": architecture(), "os": "linux" });
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
    let copy = |digest: &Digest, size: u64| -> Result<()> {
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
    };
    parallel::each(&image.layers, |layer| copy(&layer.digest, layer.size))?;
    copy(&image.config_digest, image.config_size)?;
    copy(&image.manifest_digest, image.manifest_size)
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
