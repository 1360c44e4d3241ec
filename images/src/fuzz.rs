//! What fuzz targets (`fuzz/`) call: each takes bytes as a stranger could give them, and panics only where something is wrong with us.

use invarlock_error::Kind;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde_json::json;

use crate::blobs::{Blob, Blobs};
use crate::bundle::OciArchive;
use crate::docker::DockerArchive;
use crate::policy::{Bounds, Policy, SpecialFilePolicy};
use crate::resolve::{CONFIG, INDEX, LAYER_TAR, Layer, MANIFEST, resolve};
use crate::tree::verify;
use crate::unpack::unpack;
use crate::{Digest, Error, Reference, Result};

/// Documents in memory.
#[derive(Default)]
struct GivenBlobs {
    index: Vec<u8>,
    blobs: BTreeMap<Digest, Vec<u8>>,
}

impl GivenBlobs {
    /// Puts a document in, and gives its descriptor.
    fn put(&mut self, media_type: &str, bytes: &[u8]) -> serde_json::Value {
        let digest = Digest::of(bytes);
        self.blobs.insert(digest, bytes.to_vec());
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    fn resolve(mut self, manifest: serde_json::Value) {
        self.index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] })
            .to_string()
            .into_bytes();
        found(&self);
    }
}

impl Blobs for GivenBlobs {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.index.clone())
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        let bytes = self.blobs.get(digest).ok_or_else(|| Error::integrity("it is missing"))?;
        Ok(Blob::memory(bytes.clone()))
    }
}

/// Resolves the one image there may be. Strangers' bytes are never an error of the system.
fn found(source: &dyn Blobs) {
    let any = Reference::Layout { dir: "x".into(), tag: None, digest: None };
    if let Err(error) = resolve(source, &any) {
        assert!(error.kind() != Kind::System, "{error}");
    }
}

/// Bytes as an index.
pub fn index(bytes: &[u8]) {
    found(&GivenBlobs { index: bytes.to_vec(), ..GivenBlobs::default() });
}

/// Bytes as a manifest, and as an index in the index.
pub fn manifest(bytes: &[u8]) {
    for media_type in [MANIFEST, INDEX] {
        let mut given = GivenBlobs::default();
        let manifest = given.put(media_type, bytes);
        given.resolve(manifest);
    }
}

/// Bytes as a configuration.
pub fn config(bytes: &[u8]) {
    let mut given = GivenBlobs::default();
    let config = given.put(CONFIG, bytes);
    let layer = given.put(LAYER_TAR, b"layer");
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let manifest = given.put(MANIFEST, manifest.to_string().as_bytes());
    given.resolve(manifest);
}

/// Bytes as a reference: what is read is written as it was.
pub fn reference(text: &str) {
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(reference.to_string(), text);
    }
}

/// Bytes as an archive of an image, in a file of `dir`.
pub fn bundle(bytes: &[u8], dir: &Path) {
    let path = dir.join("bundle.tar");
    std::fs::write(&path, bytes).expect("writing the archive");
    let opened = OciArchive::open(&path).map(|it| found(&it)).err();
    let saved = DockerArchive::open(&path).map(|it| found(&it)).err();
    for error in [opened, saved].into_iter().flatten() {
        assert!(error.kind() != Kind::System, "{error}");
    }
}

/// Bytes as a layer of `media_type`, unpacked into the empty directory `dir`. What is accepted is what its record says.
pub fn layer(bytes: &[u8], media_type: &str, diff_id: Digest, dir: &Path) {
    let layer = Layer {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        media_type: media_type.to_owned(),
        diff_id,
    };
    let open = || -> std::io::Result<(Dir, File)> {
        std::fs::create_dir(dir.join("root"))?;
        let record = File::options().read(true).write(true).create_new(true).open(dir.join("record"))?;
        Ok((Dir::open_ambient_dir(dir.join("root"), ambient_authority())?, record))
    };
    let (root, record) = open().expect("a place to unpack in");
    let bounds = Bounds { bytes: 1 << 20, entries: 500, ..Bounds::default() };
    let policy = Policy { devices: SpecialFilePolicy::Drop, set_id: SpecialFilePolicy::Drop };
    match unpack(Blob::memory(bytes.to_vec()), &layer, &root, &record, bounds, policy) {
        Err(error) => assert!(error.kind() != Kind::System, "{error}"),
        Ok(seal) => {
            let record = File::open(dir.join("record")).expect("the record");
            verify(&root, &record, &seal).expect("what was unpacked is what was noted");
        }
    }
}
