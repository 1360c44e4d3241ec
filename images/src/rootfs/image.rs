//! The verified layers of an image, ready to be mounted.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::cache::{ExtractedLayer, RootfsCache};
use super::level::{Level, SMALL_IMAGE, Verify};
use crate::cas::BlobSource;
use crate::layer::Policy;
use crate::oci::{Consent, Layer};
use crate::{Result, parallel};

/// How the root file system of an image is prepared.
#[derive(Clone, Copy, Debug, Default)]
pub struct RootfsOptions {
    /// How layers that are already extracted are verified.
    pub verify: Verify,
    /// What is done with contents that no container gets.
    pub policy: Policy,
}

/// Extracted layers that were verified when this value was created. They are not deleted while it exists.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifiedRootfs {
    /// The absolute paths of the layers to stack, lowest first.
    pub layers: Vec<PathBuf>,
    /// How they were verified.
    pub level: Level,
    /// What the user agreed to when the image was added to the store.
    pub consent: Consent,
    _extracted: Vec<ExtractedLayer>,
}

/// Something to verify before a run.
enum Unverified<'a> {
    Extracted(&'a ExtractedLayer),
    Blob(&'a Layer),
}

impl RootfsCache {
    /// Verifies the extracted layers of an image, whose blobs are in `source`.
    pub fn verify_image(
        &self,
        source: &dyn BlobSource,
        layers: &[Layer],
        extracted: Vec<ExtractedLayer>,
        requested: Verify,
    ) -> Result<VerifiedRootfs> {
        let bytes = extracted.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.totals.bytes));
        let verify = match requested {
            Verify::Auto if bytes <= SMALL_IMAGE => Verify::Full,
            Verify::Auto => Verify::Quick,
            other => other,
        };
        // Layers that were just extracted are verified already, but fs-verity is not enabled for them yet.
        let is_due = |layer: &ExtractedLayer| !layer.is_new || verify == Verify::FsVerity;
        let due = || extracted.iter().zip(layers).filter(|(layer, _)| is_due(layer));
        let mut unverified: Vec<Unverified<'_>> =
            due().map(|(layer, _)| Unverified::Extracted(layer)).collect();
        // A run uses only extracted layers. The blobs are verified if the user requested a full verification.
        if requested == Verify::Full {
            unverified.extend(due().map(|(_, layer)| Unverified::Blob(layer)));
        }
        let weakest = Mutex::new(Level::Full);
        parallel::for_each(&unverified, |item| match item {
            Unverified::Extracted(layer) => {
                let level = self.verify(layer, verify)?;
                let mut weakest = weakest.lock().unwrap_or_else(PoisonError::into_inner);
                *weakest = level.min(*weakest);
                Ok(())
            }
            Unverified::Blob(layer) => source.verify_layer(layer),
        })?;
        let level = weakest.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(VerifiedRootfs {
            layers: self.stack(&extracted)?,
            level,
            consent: Consent::default(),
            _extracted: extracted,
        })
    }

    /// The paths to mount. Layers below an opaque root are hidden and are left out, and so are lower occurrences of a duplicate layer, which
    /// the kernel refuses. A single layer is bind-mounted, which would show its whiteouts as devices; stacked on an empty layer they do not.
    fn stack(&self, extracted: &[ExtractedLayer]) -> Result<Vec<PathBuf>> {
        let first = extracted.iter().rposition(|layer| layer.totals.opaque_root).unwrap_or(0);
        let mut seen = BTreeSet::new();
        let mut stacked: Vec<&ExtractedLayer> =
            extracted[first..].iter().rev().filter(|layer| seen.insert(layer.diff_id)).collect();
        stacked.reverse();
        let mut paths: Vec<PathBuf> = stacked.iter().map(|layer| layer.root.clone()).collect();
        if paths.len() == 1 && stacked[0].totals.removals > 0 {
            paths.insert(0, self.empty()?);
        }
        Ok(paths)
    }
}
