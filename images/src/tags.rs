//! The names of the images in the store.

use std::collections::BTreeSet;

use invarlock_error::Kind;
use serde::Serialize;

use crate::Result;
use crate::cas::BlobSource as _;
use crate::oci::Digest;
use crate::oci::descriptor::{TAG, annotation, digest_of, is_artifact, without_annotations};
use crate::reference::Reference;
use crate::transport::{LocalImages, resolve};

/// An image in the list of images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ListedImage {
    /// The tag, or the digest of an image without one.
    pub reference: String,
    /// The digest of the manifest.
    pub manifest_digest: Digest,
    /// Size of all blobs in bytes.
    pub bytes: u64,
}

impl LocalImages {
    /// The images of the store.
    pub fn list(&self) -> Result<Vec<ListedImage>> {
        let _lock = self.layout.lock_shared()?;
        let snapshot = self.layout.snapshot()?;
        let mut list = Vec::new();
        for descriptor in snapshot.index()?.manifests().iter().filter(|entry| !is_artifact(entry)) {
            let image = digest_of(descriptor)
                .and_then(|digest| resolve::resolve(&snapshot, &Reference::Digest(digest)));
            let tag = annotation(descriptor, TAG).map(str::to_owned);
            let reference = tag.unwrap_or_else(|| descriptor.digest().to_string());
            let image = image.map_err(|error| {
                error.context(format_args!("image {reference}")).with_hint_if(
                    Kind::Integrity,
                    "run `invarlock runtime image verify` for details, or remove the image with `invarlock runtime image rm`",
                )
            })?;
            list.push(ListedImage { reference, manifest_digest: image.manifest_digest, bytes: image.bytes });
        }
        list.sort_by(|a, b| a.reference.cmp(&b.reference));
        // An image that was chosen from several indexes has an entry for each of them.
        list.dedup();
        Ok(list)
    }

    /// Gives the name `tag` to an image of the store.
    pub fn tag(&self, reference: &Reference, tag: &str) -> Result<Digest> {
        let tag = Reference::parse_new_tag(tag)?;
        let layout = self.layout.lock_shared()?;
        let descriptor =
            self.in_store(reference, |source| resolve::manifest_descriptor(source, reference))?;
        let digest = digest_of(&descriptor)?;
        layout.tag(Some(&tag), without_annotations(&descriptor)?)?;
        Ok(digest)
    }

    /// Removes a tag, or with a digest all tags of the image. Blobs and extracted layers are deleted by `gc`. Returns the removed tags, or the
    /// digest of an image without one.
    pub fn remove(&self, reference: &Reference) -> Result<Vec<String>> {
        let layout = self.layout.lock_shared()?;
        let descriptor = self.in_store(reference, |source| match reference {
            // The digest can be that of the index from which the image was chosen.
            Reference::Registry(_) => resolve::manifest_descriptor(source, reference),
            _ => resolve::index_entry(source, reference),
        })?;
        let digest = descriptor.digest().to_string();
        let tag = reference.index_tag();
        let remove = || -> Result<Vec<String>> {
            let mut removed = BTreeSet::new();
            layout.edit_index(|manifests| {
                manifests.retain(|entry| {
                    let own = entry["annotations"][TAG].as_str();
                    let is_removed = entry["digest"] == digest.as_str()
                        && tag.as_deref().is_none_or(|tag| own == Some(tag));
                    if is_removed {
                        removed.insert(own.unwrap_or(&digest).to_owned());
                    }
                    !is_removed
                });
            })?;
            Ok(removed.into_iter().collect())
        };
        match remove() {
            // The disk may be too full for a new index. Extracted layers can be extracted again.
            Err(error) if error.kind() == Kind::System => {
                self.discard_unused(&digest)?;
                remove()
            }
            other => other,
        }
    }

    /// Deletes the unused extracted layers of the image with this manifest.
    fn discard_unused(&self, manifest: &str) -> Result<()> {
        let image = self.resolve(&Reference::Digest(Digest::parse(manifest)?));
        let layers = image.map(|image| image.layers).unwrap_or_default();
        let mut unused = layers.iter().filter(|layer| self.rootfs.is_unused(&layer.diff_id));
        unused.try_for_each(|layer| self.rootfs.discard(&layer.diff_id))
    }
}
