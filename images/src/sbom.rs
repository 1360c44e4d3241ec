//! Bills of materials: what an image is made of, as CycloneDX, attached to it by reference as an artifact of its own.
//!
//! The artifact is a manifest whose `subject` is the image's, as registries list them. The image does not know of it, so its digest is the
//! same with and without.

use std::collections::BTreeMap;

use oci_spec::image::Descriptor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde_json::{Value, json};

use crate::blobs::Blobs as _;
use crate::build::{bytes, descriptor, put_bytes};
use crate::files::parse;
use crate::layout::Held;
use crate::resolve::{MANIFEST, digest_of};
use crate::{Digest, Error, Reference, Result, Store};

const CYCLONEDX: &str = "application/vnd.cyclonedx+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// What does not stand for itself in a part of a package URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// One thing that an image is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Component {
    pub name: String,
    pub version: String,
    /// Its package URL.
    pub purl: String,
    /// Package URLs of what it needs, where that is known.
    pub needs: Vec<String>,
}

impl Component {
    pub fn new(kind: &str, name: &str, version: &str, rest: &str) -> Self {
        let purl = format!("pkg:{kind}/{}@{}{rest}", escaped(name), escaped(version));
        Self { name: name.to_owned(), version: version.to_owned(), purl, needs: Vec::new() }
    }
}

/// What an image is made of, by package URL.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sbom(BTreeMap<String, Component>);

impl Sbom {
    pub fn add(&mut self, component: Component) {
        self.0.insert(component.purl.clone(), component);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Component> {
        self.0.values()
    }

    pub fn retain(&mut self, stays: impl Fn(&Component) -> bool) {
        self.0.retain(|_, it| stays(it));
    }

    /// The document. It follows from what it lists and from the image alone: its number is made of its digest, and it has no time.
    fn document(&self, name: &str, image: &Digest) -> Value {
        let component = |it: &Component| json!({ "type": "library", "bom-ref": it.purl, "name": it.name, "version": it.version, "purl": it.purl });
        let needs = |it: &Component| json!({ "ref": it.purl, "dependsOn": it.needs });
        let mut document = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "serialNumber": "",
            "version": 1,
            "metadata": { "component": {
                "type": "container", "bom-ref": image, "name": name, "version": image,
                "hashes": [{ "alg": "SHA-256", "content": image.hex() }],
            } },
            "components": self.0.values().map(component).collect::<Vec<_>>(),
            "dependencies": self.0.values().map(needs).collect::<Vec<_>>(),
        });
        let mut hex = Digest::of(document.to_string().as_bytes()).hex();
        // Version 8 of such numbers is for makers' own ways, variant 8 for those that are numbered by version.
        hex.replace_range(12..13, "8");
        hex.replace_range(16..17, "8");
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]];
        document["serialNumber"] = json!(format!("urn:uuid:{}", parts.join("-"))); // join: text
        document
    }

    /// What a document of ours lists.
    fn of_document(document: &Value) -> Option<Self> {
        let mut bill = Self::default();
        for it in document["components"].as_array()? {
            let text = |key: &str| it[key].as_str().map(str::to_owned);
            let (name, version, purl) = (text("name")?, text("version")?, text("purl")?);
            bill.add(Component { name, version, purl, needs: Vec::new() });
        }
        for it in document["dependencies"].as_array()? {
            if let Some(component) = bill.0.get_mut(it["ref"].as_str()?) {
                let needs = it["dependsOn"].as_array()?.iter();
                component.needs = needs.filter_map(|it| it.as_str().map(str::to_owned)).collect();
            }
        }
        Some(bill)
    }
}

/// A part of a package URL.
fn escaped(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, ESCAPED)
}

impl Store {
    /// The bill of materials of the image that `reference` means, byte for byte as it was attached.
    pub fn sbom(&self, reference: &Reference) -> Result<Vec<u8>> {
        let image = self.resolve(reference)?;
        self.attached(&image.manifest_digest)?.map(|(_, bill)| bill).ok_or_else(|| {
            Error::unsupported(format!(
                "image {reference} has no bill of materials here; images have one that were built here from an evaluator that says what \
                 it is made of, or from directories with Debian's or Python's packages (`invarlock runtime image build`); whether one is \
                 damaged says `invarlock runtime image verify`"
            ))
        })
    }

    pub(crate) fn bill(&self, image: &Digest) -> Result<Option<Sbom>> {
        let Some((_, bytes)) = self.attached(image)? else { return Ok(None) };
        Ok(Sbom::of_document(&parse("the bill of materials", &bytes)?))
    }

    /// The artifact's descriptor in the index, and the document. One whose manifest is damaged could be any image's: it is nobody's.
    fn attached(&self, image: &Digest) -> Result<Option<(Value, Vec<u8>)>> {
        for artifact in self.layout.index()?.manifests() {
            if artifact.artifact_type().as_ref().is_none_or(|it| it.to_string() != CYCLONEDX) {
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

    /// The manifest of an artifact, and the digest of the image that it is attached to.
    fn artifact(&self, descriptor: &Descriptor) -> Result<(Value, String)> {
        let digest = digest_of(descriptor)?;
        let manifest: Value = parse(digest, &self.layout.json(&digest, descriptor.size())?)?;
        let subject = manifest["subject"]["digest"].as_str().unwrap_or_default().to_owned();
        Ok((manifest, subject))
    }

    fn document(&self, manifest: &Value) -> Result<Vec<u8>> {
        let blob = &manifest["layers"][0];
        let (Some(size), Some(digest)) = (blob["size"].as_u64(), blob["digest"].as_str()) else {
            return Err(Error::integrity("a bill of materials is not what it should be"));
        };
        self.layout.json(&Digest::parse(digest)?, size)
    }

    /// Attaches a bill to an image in place of the one it has. An empty one is none.
    pub(crate) fn attach(
        &self,
        held: &Held<'_>,
        name: &str,
        image: (&Digest, u64),
        bill: &Sbom,
    ) -> Result<()> {
        if bill.is_empty() {
            return Ok(());
        }
        let document = bytes(&bill.document(name, image.0))?;
        // One that is damaged is replaced.
        let there = self.attached(image.0).unwrap_or(None);
        if there.as_ref().is_some_and(|(_, there)| *there == document) {
            return Ok(());
        }
        let blob = put_bytes(held, &document)?;
        let empty = put_bytes(held, b"{}")?;
        let manifest = bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": CYCLONEDX,
            "config": descriptor(EMPTY, &empty, 2, false),
            "layers": [descriptor(CYCLONEDX, &blob, document.len() as u64, false)],
            "subject": descriptor(MANIFEST, image.0, image.1, false),
        }))?;
        let digest = put_bytes(held, &manifest)?;
        held.sync()?;
        let mut listed = descriptor(MANIFEST, &digest, manifest.len() as u64, false);
        listed["artifactType"] = json!(CYCLONEDX);
        held.edit_index(|manifests| {
            let old = there.as_ref().map(|(old, _)| &old["digest"]);
            manifests.retain(|it| it["digest"] != listed["digest"] && Some(&it["digest"]) != old);
            manifests.push(listed);
        })
    }

    /// Those artifacts of the index whose image is no longer in it, and those that are damaged, which are of no use to anybody.
    pub(crate) fn orphans(&self) -> Result<Vec<String>> {
        let index = self.layout.index()?;
        let (artifacts, images): (Vec<_>, Vec<_>) =
            index.manifests().iter().partition(|it| it.artifact_type().is_some());
        let mut orphans = Vec::new();
        for artifact in artifacts {
            let sound = self.artifact(artifact).and_then(|(manifest, subject)| {
                self.document(&manifest)?;
                Ok(images.iter().any(|it| it.digest().to_string() == subject))
            });
            if !sound.unwrap_or(false) {
                orphans.push(artifact.digest().to_string());
            }
        }
        Ok(orphans)
    }
}
