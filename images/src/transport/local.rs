//! The images of a store, and the layouts and archives from which images can also be read.

use invarlock_error::{Context as _, Kind};

use super::docker_archive::DockerArchive;
use super::oci_archive::OciArchive;
use super::resolve::{self, ResolvedImage};
use crate::cas::{BlobSource, Layout};
use crate::layer::limits::Limits;
use crate::layer::{Policy, SpecialFilePolicy};
use crate::oci::{Consent, Layer};
use crate::reference::Reference;
use crate::rootfs::{ExtractedLayer, Level, RootfsCache, RootfsOptions, VerifiedRootfs, Verify};
use crate::{Error, Result};

/// The layout and the extracted layers of a store.
#[derive(Debug)]
pub(crate) struct LocalImages {
    pub layout: Layout,
    pub rootfs: RootfsCache,
}

impl LocalImages {
    /// Resolves a reference, and verifies everything down to the configuration.
    pub fn resolve(&self, reference: &Reference) -> Result<ResolvedImage> {
        self.with_source(reference, |source| resolve::resolve(source, reference))
    }

    /// Calls `work` with the source of the image.
    pub fn with_source<T>(
        &self,
        reference: &Reference,
        work: impl FnOnce(&dyn BlobSource) -> Result<T>,
    ) -> Result<T> {
        let result = match reference {
            Reference::Layout { dir, .. } => Layout::open(dir).and_then(|layout| work(&layout)),
            Reference::Archive { file, .. } => OciArchive::open(file).and_then(|archive| work(&archive)),
            Reference::DockerArchive { file, .. } => {
                DockerArchive::open(file).and_then(|archive| work(&archive))
            }
            _ => work(&self.layout),
        };
        result
            .with_context(|| format!("image {reference}"))
            .map_err(|error| error.with_hint_if(Kind::Integrity, repair_hint(reference)))
    }

    /// Calls `work` with the store. An image from elsewhere must be imported first.
    pub fn in_store<T>(
        &self,
        reference: &Reference,
        work: impl FnOnce(&dyn BlobSource) -> Result<T>,
    ) -> Result<T> {
        match reference {
            Reference::Tag { .. } | Reference::Digest(_) | Reference::Registry(_) => {
                self.with_source(reference, work)
            }
            _ => Err(Error::input(format!("{reference} is not an image of the store"))
                .with_hint("import it with `invarlock runtime image import`")),
        }
    }

    /// The extracted layers of an image. Missing ones are extracted.
    pub fn extracted(
        &self,
        source: &dyn BlobSource,
        image: &ResolvedImage,
        policy: Policy,
    ) -> Result<Vec<ExtractedLayer>> {
        let _lock = self.layout.lock_shared()?;
        // A run uses extracted layers, whose blobs were verified at extraction. Here blobs only have to exist.
        image.layers.iter().try_for_each(|layer| source.blob(&layer.digest, layer.size).map(drop))?;
        self.rootfs.get(source, &image.layers, policy)
    }

    /// Extracts the layers of an image if necessary, and verifies them.
    pub fn rootfs(&self, image: &ResolvedImage, options: RootfsOptions) -> Result<VerifiedRootfs> {
        self.with_source(&image.reference, |source| {
            let mut policy = options.policy;
            let consent = self.consent(image)?;
            if consent.drop_devices {
                policy.devices = SpecialFilePolicy::Drop;
            }
            policy.layer_size = policy.layer_size.max(consent.layer_size);
            let extracted = self.extracted(source, image, policy)?;
            let mut verified = self.rootfs.verify_image(source, &image.layers, extracted, options.verify)?;
            verified.consent = consent;
            Ok(verified)
        })
    }

    /// What the user agreed to when the image was added to the store.
    pub fn consent(&self, image: &ResolvedImage) -> Result<Consent> {
        if !matches!(image.reference, Reference::Tag { .. } | Reference::Digest(_) | Reference::Registry(_)) {
            return Ok(Consent::default());
        }
        let digest = image.manifest_digest.to_string();
        let index = self.layout.index()?;
        let entries = index.manifests().iter().filter(|entry| entry.digest().to_string() == digest);
        Ok(entries.map(Consent::of).fold(Consent::default(), Consent::and))
    }

    /// Verifies an extracted layer in full. `None` if the layer is not extracted.
    pub fn verify_extracted(&self, layer: &Layer) -> Result<Option<Level>> {
        let extracted = self.rootfs.find(&layer.diff_id)?;
        extracted.map(|extracted| self.rootfs.verify(&extracted, Verify::Full)).transpose()
    }
}

/// What of `policy` the layers of an image need.
pub(crate) fn needed_consent(layers: &[Layer], extracted: &[ExtractedLayer], policy: Policy) -> Consent {
    let is_large = |(layer, extracted): (&Layer, &ExtractedLayer)| {
        extracted.totals.bytes > Limits::default().max_archive(layer.size, None)
    };
    Consent {
        drop_devices: extracted.iter().any(|layer| layer.totals.dropped_devices > 0),
        layer_size: policy.layer_size.filter(|_| layers.iter().zip(extracted).any(is_large)),
    }
}

/// How a corrupt image can be replaced.
fn repair_hint(reference: &Reference) -> String {
    match reference {
        Reference::Layout { dir, .. } => format!("copy the image into {} again", dir.display()),
        Reference::Archive { file, .. } | Reference::DockerArchive { file, .. } => {
            format!("obtain {} again", file.display())
        }
        Reference::Registry(_) => {
            format!("pull it again: `invarlock runtime image pull {reference} --allow-network`")
        }
        _ => {
            "run `invarlock runtime image build` for the default image, or import the image again".to_owned()
        }
    }
}
