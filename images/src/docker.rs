//! What `docker save` and `podman save` write: a tar archive with `manifest.json`, a configuration and unpacked layers for each image.
//!
//! It names no manifest, so one is made here, the same for the same image: its layers' digests are what the configuration says of
//! their archives, and are verified like any other when they are read.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::blobs::{Blob, Blobs, TAG};
use crate::bundle::Bundle;
use crate::digest::Hashing;
use crate::files::parse;
use crate::resolve::{CONFIG, INDEX, LAYER_GZIP, LAYER_TAR, MANIFEST, MOST_LAYERS, written_digest};
use crate::{Digest, Error, Result};

/// Images in one archive.
const MOST_IMAGES: usize = 1000;

#[derive(Debug)]
pub(crate) struct DockerArchive {
    bundle: Bundle,
    index: Vec<u8>,
    /// Documents made here, and configurations.
    documents: BTreeMap<Digest, Vec<u8>>,
    /// Members that are layers.
    layers: BTreeMap<Digest, String>,
}

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerArchive {
    pub fn open(path: &Path) -> Result<Self> {
        let bundle = Bundle::open(path)?;
        Self::of(bundle).map_err(|error| error.within(format_args!("image archive {}", path.display())))
    }

    fn of(bundle: Bundle) -> Result<Self> {
        let saved: Vec<Saved> = parse("manifest.json", &bundle.text("manifest.json")?)?;
        if saved.len() > MOST_IMAGES {
            return Err(Error::Safety(format!("more than {MOST_IMAGES} images")));
        }
        let mut this =
            Self { bundle, index: Vec::new(), documents: BTreeMap::new(), layers: BTreeMap::new() };
        let mut manifests = Vec::new();
        for image in &saved {
            let manifest = this.manifest(image)?;
            let tags = image.repo_tags.iter().flatten();
            let tagged = |tag: &String| {
                let mut it = manifest.clone();
                it["annotations"] = json!({ TAG: tag });
                it
            };
            let before = manifests.len();
            manifests.extend(tags.map(tagged));
            if manifests.len() == before {
                manifests.push(manifest);
            }
        }
        this.index = text(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }))?;
        Ok(this)
    }

    /// Makes the manifest of an image, and gives its descriptor.
    fn manifest(&mut self, image: &Saved) -> Result<Value> {
        let config = self.bundle.text(&image.config)?;
        let parsed: ImageConfiguration = parse(&image.config, &config)?;
        let ids = parsed.rootfs().diff_ids();
        if ids.len() != image.layers.len() || ids.len() > MOST_LAYERS {
            return Err(Error::Integrity(format!(
                "{} layers, but the configuration names {}; at most {MOST_LAYERS} can be mounted",
                image.layers.len(),
                ids.len()
            )));
        }
        let mut layers = Vec::new();
        for (name, id) in image.layers.iter().zip(ids) {
            layers.push(self.layer(name, written_digest(id)?)?);
        }
        let config =
            json!({ "mediaType": CONFIG, "digest": self.document(config.clone()), "size": config.len() });
        let manifest =
            text(&json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }))?;
        let size = manifest.len();
        Ok(json!({ "mediaType": MANIFEST, "digest": self.document(manifest), "size": size }))
    }

    /// The descriptor of a layer. One that is compressed, which the format does not foresee and Docker reads all the same, has another
    /// digest than the configuration says; it is computed.
    fn layer(&mut self, name: &str, diff_id: Digest) -> Result<Value> {
        let mut blob = self.bundle.member(name)?;
        let size = blob.len();
        let mut magic = [0; 2];
        let packed = blob.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
        let (kind, digest) = if packed {
            let mut hashing = Hashing::new(());
            hashing.read_all(self.bundle.member(name)?).map_err(Error::io(format_args!("reading {name}")))?;
            (LAYER_GZIP, hashing.finish().2)
        } else {
            (LAYER_TAR, diff_id)
        };
        self.layers.insert(digest, name.to_owned());
        Ok(json!({ "mediaType": kind, "digest": digest, "size": size }))
    }

    fn document(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.documents.insert(digest, bytes);
        digest
    }
}

fn text(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::System(format!("writing JSON: {error}")))
}

impl Blobs for DockerArchive {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.index.clone())
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        match (self.documents.get(digest), self.layers.get(digest)) {
            (Some(bytes), _) => Ok(Blob::memory(bytes.clone())),
            (None, Some(name)) => self.bundle.member(name),
            (None, None) => Err(Error::Integrity("it is not in the archive".to_owned())),
        }
    }
}
