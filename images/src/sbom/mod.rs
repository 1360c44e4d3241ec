//! SBOMs: lists of the components of an image in CycloneDX format, attached to the image as an artifact.
//!
//! The artifact is a manifest whose `subject` is the manifest of the image, as registries list them. The image does not refer to it, so
//! the digest of the image does not depend on it.

pub(crate) mod crates;
mod document;
pub(crate) mod packages;

use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Value, json};

pub(crate) use document::Sbom;

use crate::cas::{BlobSource as _, LockedLayout};
use crate::oci::Digest;
use crate::oci::descriptor::{descriptor, digest_of, is_artifact};
use crate::oci::json::{parse, to_bytes};
use crate::reference::Reference;
use crate::transport::LocalImages;
use crate::{Error, Result};

const CYCLONEDX: &str = "application/vnd.cyclonedx+json";

impl LocalImages {
    /// The bytes of the SBOM that is attached to an image.
    pub fn sbom_bytes(&self, reference: &Reference) -> Result<Vec<u8>> {
        let image = self.resolve(reference)?;
        self.attached(&image.manifest_digest)?.map(|(_, document)| document).ok_or_else(|| {
            Error::unsupported(format!("image {reference} has no SBOM in this store")).with_hint(
                "possible reasons: the image was not built here; no Debian or Python packages were found; an input was a tar archive, not a \
                 directory; its packages cannot be listed completely (apk or rpm, two versions of one package, a layer that removes files). \
                 `invarlock runtime image verify` reports a corrupt SBOM",
            )
        })
    }

    /// The SBOM of an image, if one is attached.
    pub fn sbom(&self, image: &Digest) -> Result<Option<Sbom>> {
        let Some((_, bytes)) = self.attached(image)? else { return Ok(None) };
        Ok(Sbom::from_document(&parse("the SBOM", &bytes)?))
    }

    /// The descriptor of the artifact in the index, and the document. Artifacts with a corrupt manifest are ignored.
    fn attached(&self, image: &Digest) -> Result<Option<(Value, Vec<u8>)>> {
        for artifact in self.layout.index()?.manifests() {
            if artifact.artifact_type().as_ref().is_none_or(|found| found.to_string() != CYCLONEDX) {
                continue;
            }
            match self.artifact(artifact) {
                Ok((manifest, subject)) if subject == image.to_string() => {
                    return Ok(Some((json!(artifact), self.document(&manifest)?)));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// The manifest of an artifact, and the digest of the image to which it is attached.
    fn artifact(&self, descriptor: &Descriptor) -> Result<(Value, String)> {
        let digest = digest_of(descriptor)?;
        let manifest: Value = parse(digest, &self.layout.json(&digest, descriptor.size())?)?;
        let subject = manifest["subject"]["digest"].as_str().unwrap_or_default().to_owned();
        Ok((manifest, subject))
    }

    fn document(&self, manifest: &Value) -> Result<Vec<u8>> {
        let blob = &manifest["layers"][0];
        let (Some(size), Some(digest)) = (blob["size"].as_u64(), blob["digest"].as_str()) else {
            return Err(Error::integrity("the manifest of an SBOM is malformed"));
        };
        self.layout.json(&Digest::parse(digest)?, size)
    }

    /// Attaches an SBOM to an image, in place of the existing one. An empty SBOM is not attached.
    pub fn attach_sbom(
        &self,
        layout: &LockedLayout<'_>,
        name: &str,
        image: (&Digest, u64),
        sbom: &Sbom,
    ) -> Result<()> {
        if sbom.is_empty() {
            return Ok(());
        }
        let document = to_bytes(&sbom.to_document(name, image.0))?;
        // A corrupt SBOM is replaced.
        let existing = self.attached(image.0).unwrap_or(None);
        if existing.as_ref().is_some_and(|(_, bytes)| *bytes == document) {
            return Ok(());
        }
        let blob = layout.write_bytes(&document)?;
        let empty = layout.write_bytes(b"{}")?;
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "artifactType": CYCLONEDX,
            "config": descriptor(&MediaType::EmptyJSON, &empty, 2),
            "layers": [descriptor(&CYCLONEDX.into(), &blob, document.len() as u64)],
            "subject": descriptor(&MediaType::ImageManifest, image.0, image.1),
        }))?;
        let digest = layout.write_bytes(&manifest)?;
        layout.sync()?;
        let mut listed = descriptor(&MediaType::ImageManifest, &digest, manifest.len() as u64);
        listed["artifactType"] = json!(CYCLONEDX);
        layout.edit_index(|manifests| {
            let old = existing.as_ref().map(|(old, _)| &old["digest"]);
            manifests.retain(|entry| entry["digest"] != listed["digest"] && Some(&entry["digest"]) != old);
            manifests.push(listed);
        })
    }

    /// The digests of artifacts in the index that are corrupt or whose image is no longer in it.
    pub fn orphaned_artifacts(&self) -> Result<Vec<String>> {
        let index = self.layout.index()?;
        let (artifacts, images): (Vec<_>, Vec<_>) =
            index.manifests().iter().partition(|entry| is_artifact(entry));
        let mut orphans = Vec::new();
        for artifact in artifacts {
            let is_attached = self.artifact(artifact).and_then(|(manifest, subject)| {
                self.document(&manifest)?;
                Ok(images.iter().any(|it| it.digest().to_string() == subject))
            });
            if !is_attached.unwrap_or(false) {
                orphans.push(artifact.digest().to_string());
            }
        }
        Ok(orphans)
    }
}
