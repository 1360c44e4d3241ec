//! Verification and description of images, blobs and extracted layers in the store.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use invarlock_error::Context as _;
use serde::Serialize;
use serde_json::Value;

use crate::cas::BlobSource;
use crate::layer::{MAX_LAYER_SIZE, Policy, SpecialFilePolicy};
use crate::oci::descriptor::{TAG, annotation, chosen_from, digest_of, is_artifact};
use crate::oci::json::parse;
use crate::oci::{Consent, Digest, Hashing, Layer};
use crate::reference::Reference;
use crate::rootfs::cache::diff_id_of;
use crate::rootfs::{Level, Verify};
use crate::transport::{LocalImages, ResolvedImage, resolve};
use crate::{Error, Result, parallel};

/// The result of the full verification of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Checked {
    /// `image`, `blob` or `tree`.
    pub kind: &'static str,
    /// The reference or digest.
    pub name: String,
    /// The problem, if there is one.
    pub problem: Option<String>,
    /// The extracted layer was altered, and was extracted again.
    pub repaired: bool,
    /// The extracted layer was altered, and was removed: no intact image of the store uses it.
    pub removed: bool,
}

/// An image, described.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Described {
    /// Its reference.
    pub reference: String,
    /// The digest of the manifest.
    pub manifest_digest: Digest,
    /// The digest of the configuration.
    pub config_digest: Digest,
    /// Size of all blobs in bytes.
    pub bytes: u64,
    /// The protocol of the image by its label: `measure` or `delegate`; null without the label.
    pub speaks: Option<String>,
    /// What the user agreed to when the image was added to the store; absent if nothing.
    #[serde(skip_serializing_if = "Consent::is_none")]
    pub consent: Consent,
    /// The layers, lowest first.
    pub layers: Vec<DescribedLayer>,
    /// The OCI manifest.
    pub manifest: Value,
    /// The OCI configuration.
    pub config: Value,
}

/// A layer of a described image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct DescribedLayer {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// The extracted layer.
    pub tree: ExtractedState,
}

/// The state of an extracted layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExtractedState {
    /// It does not exist.
    #[serde(rename = "not unpacked")]
    Absent,
    /// It is unaltered.
    Verified {
        /// How it was verified.
        level: Level,
    },
    /// It is not what was extracted.
    Altered {
        /// The difference.
        error: String,
    },
}

/// The images that have the blob as a layer, for a message.
fn used_by(blob: &Digest, images: &[ResolvedImage], names: &[String]) -> String {
    let uses = |image: &ResolvedImage| image.layers.iter().any(|layer| layer.digest == *blob);
    let users = images.iter().zip(names).filter(|(image, _)| uses(image)).map(|(_, name)| name.as_str());
    match users.collect::<Vec<_>>().as_slice() {
        [] => String::new(),
        users => format!(" (used by {})", users.join(", ")),
    }
}

impl LocalImages {
    /// Verifies an image, or everything in the store, in full. With `repair`, altered extracted layers whose blobs are correct are extracted
    /// again, and altered extracted layers that no image uses are removed.
    pub fn verify(&self, reference: Option<&Reference>, repair: bool) -> Result<Vec<Checked>> {
        let _lock = self.layout.lock_shared()?;
        let (mut images, mut names) = (Vec::new(), Vec::new());
        let mut checked = Vec::new();
        match reference {
            Some(reference) => {
                images.push(self.resolve(reference)?);
                names.push(reference.to_string());
            }
            None => {
                let snapshot = self.layout.snapshot()?;
                for descriptor in snapshot.index()?.manifests().iter().filter(|entry| !is_artifact(entry)) {
                    let digest = digest_of(descriptor)?;
                    let tag = annotation(descriptor, TAG);
                    let own = Reference::Digest(digest);
                    let resolved = self.with_source(&own, |_| resolve::resolve(&snapshot, &own));
                    let name = tag.map_or_else(|| digest.to_string(), str::to_owned);
                    if resolved.is_ok() {
                        names.push(name.clone());
                    }
                    checked.push(Checked {
                        kind: "image",
                        name,
                        problem: resolved.as_ref().err().map(ToString::to_string),
                        repaired: false,
                        removed: false,
                    });
                    images.extend(resolved);
                }
            }
        }
        checked.extend(self.verify_blobs(reference, &images, &names)?);
        checked.extend(self.verify_extracted_layers(reference, &images, repair)?);
        Ok(checked)
    }

    /// `names` are those of the images, for messages.
    fn verify_blobs(
        &self,
        reference: Option<&Reference>,
        images: &[ResolvedImage],
        names: &[String],
    ) -> Result<Vec<Checked>> {
        // Blobs that images need, and all others in the store.
        let needed = images.iter().flat_map(|image| image.layers.iter().map(|layer| layer.digest));
        let mut blobs: BTreeSet<Digest> = needed.collect();
        if reference.is_none() {
            blobs.extend(self.layout.index()?.manifests().iter().filter_map(chosen_from));
            blobs.extend(self.blob_names()?.iter().filter_map(|name| Digest::from_hex(name)));
        }
        let check = |digest: &Digest| -> Result<()> {
            let work = |source: &dyn BlobSource| {
                let mut hashing = Hashing::new(());
                hashing.read_all(source.open(digest)?).context("reading it")?;
                match hashing.finish().2 {
                    found if found == *digest => Ok(()),
                    found => Err(Error::integrity(format!("it contains bytes with digest {found}"))),
                }
            };
            match reference {
                Some(reference) => self.with_source(reference, work),
                None => work(&self.layout),
            }
        };
        let blobs: Vec<_> = blobs.into_iter().map(|digest| (digest, Mutex::new(None))).collect();
        parallel::for_each(&blobs, |(digest, problem)| {
            *problem.lock().unwrap_or_else(PoisonError::into_inner) =
                check(digest).err().map(|error| format!("{error}{}", used_by(digest, images, names)));
            Ok(())
        })?;
        let checked = |(digest, problem): (Digest, Mutex<Option<String>>)| Checked {
            kind: "blob",
            name: digest.to_string(),
            problem: problem.into_inner().unwrap_or_else(PoisonError::into_inner),
            repaired: false,
            removed: false,
        };
        Ok(blobs.into_iter().map(checked).collect())
    }

    fn verify_extracted_layers(
        &self,
        reference: Option<&Reference>,
        images: &[ResolvedImage],
        repair: bool,
    ) -> Result<Vec<Checked>> {
        let layers = || images.iter().flat_map(|image| image.layers.iter().map(move |layer| (image, layer)));
        let mut ids: BTreeSet<Digest> = layers().map(|(_, layer)| layer.diff_id).collect();
        if reference.is_none() {
            let names = self.rootfs.names()?;
            ids.extend(names.iter().filter_map(|name| diff_id_of(name)));
        }
        let mut checked = Vec::new();
        for id in ids {
            let found = self.rootfs.find(&id);
            let verified = found.and_then(|extracted| match extracted {
                Some(extracted) => self.rootfs.verify(&extracted, Verify::Full).map(Some),
                None => Ok(None),
            });
            let mut problem = match verified {
                Ok(None) => continue,
                Ok(Some(_)) => None,
                Err(error) => Some(error.to_string()),
            };
            let (mut repaired, mut removed) = (false, false);
            if repair && problem.is_some() {
                // Without an image it is not known which blob contains the layer.
                let (result, done) = match layers().find(|(_, layer)| layer.diff_id == id) {
                    Some((image, layer)) => (self.extract_again(image, layer), &mut repaired),
                    None => (self.rootfs.discard(&id), &mut removed),
                };
                *done = result.is_ok();
                problem = result.err().map(|error| error.to_string());
            }
            checked.push(Checked { kind: "tree", name: id.to_string(), problem, repaired, removed });
        }
        Ok(checked)
    }

    fn extract_again(&self, image: &ResolvedImage, layer: &Layer) -> Result<()> {
        self.rootfs.discard(&layer.diff_id)?;
        // It was accepted before.
        let policy = Policy {
            devices: SpecialFilePolicy::Drop,
            layer_size: Some(MAX_LAYER_SIZE),
            ..Policy::default()
        };
        self.with_source(&image.reference, |source| {
            self.rootfs.get(source, std::slice::from_ref(layer), policy).map(drop)
        })
    }

    /// Describes an image: its manifest and configuration, and the state of its extracted layers.
    pub fn inspect(&self, reference: &Reference) -> Result<Described> {
        let _lock = self.layout.lock_shared()?;
        let image = self.resolve(reference)?;
        let document = |digest: &Digest| {
            self.with_source(reference, |source| {
                let size = source.open(digest)?.len();
                parse::<Value>(digest, &source.json(digest, size)?)
            })
        };
        let tree = |layer: &Layer| {
            let tree = match self.verify_extracted(layer) {
                Ok(None) => ExtractedState::Absent,
                Ok(Some(level)) => ExtractedState::Verified { level },
                Err(error) => ExtractedState::Altered { error: error.to_string() },
            };
            DescribedLayer { diff_id: layer.diff_id, digest: layer.digest, size: layer.size, tree }
        };
        Ok(Described {
            reference: image.reference.to_string(),
            manifest_digest: image.manifest_digest,
            config_digest: image.config_digest,
            bytes: image.bytes,
            consent: self.consent(&image)?,
            layers: image.layers.iter().map(tree).collect(),
            manifest: document(&image.manifest_digest)?,
            config: document(&image.config_digest)?,
            speaks: image.speaks,
        })
    }
}
