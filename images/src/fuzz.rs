//! Entry points of the fuzz targets in `fuzz/`. Each takes untrusted input and panics only on a fault of this crate.

use invarlock_error::Kind;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde_json::json;

use oci_spec::image::MediaType;

use crate::cas::{Blob, BlobSource};
use crate::layer::extract::extract;
use crate::layer::limits::{Limits, Policy, SpecialFilePolicy};
use crate::oci::descriptor::descriptor;
use crate::oci::{Digest, Layer};
use crate::reference::Reference;
use crate::rootfs::record::RecordWriter;
use crate::rootfs::verify::verify;
use crate::transport::docker_archive::DockerArchive;
use crate::transport::oci_archive::OciArchive;
use crate::transport::resolve::resolve;
use crate::{Error, Result};

/// Documents in memory.
#[derive(Default)]
struct MemorySource {
    index: Vec<u8>,
    blobs: BTreeMap<Digest, Vec<u8>>,
}

impl MemorySource {
    /// Adds a document and returns its descriptor.
    fn add(&mut self, media_type: &MediaType, bytes: &[u8]) -> serde_json::Value {
        let digest = Digest::of(bytes);
        self.blobs.insert(digest, bytes.to_vec());
        descriptor(media_type, &digest, bytes.len() as u64)
    }

    fn resolve(mut self, manifest: serde_json::Value) {
        self.index =
            json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": [manifest] })
                .to_string()
                .into_bytes();
        resolve_any(&self);
    }
}

impl BlobSource for MemorySource {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.index.clone())
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        let bytes = self.blobs.get(digest).ok_or_else(|| Error::integrity("it is missing"))?;
        Ok(Blob::memory(bytes.clone()))
    }
}

/// Resolves the only image. Untrusted input must never be a system error.
fn resolve_any(source: &dyn BlobSource) {
    let any = Reference::Layout { dir: "x".into(), tag: None, digest: None };
    if let Err(error) = resolve(source, &any) {
        assert!(error.kind() != Kind::System, "{error}");
    }
}

/// Bytes as an index.
pub fn index(bytes: &[u8]) {
    resolve_any(&MemorySource { index: bytes.to_vec(), ..MemorySource::default() });
}

/// Bytes as a manifest, and as an index in the index.
pub fn manifest(bytes: &[u8]) {
    for media_type in [MediaType::ImageManifest, MediaType::ImageIndex] {
        let mut source = MemorySource::default();
        let manifest = source.add(&media_type, bytes);
        source.resolve(manifest);
    }
}

/// Bytes as a configuration.
pub fn config(bytes: &[u8]) {
    let mut source = MemorySource::default();
    let config = source.add(&MediaType::ImageConfig, bytes);
    let layer = source.add(&MediaType::ImageLayer, b"layer");
    let manifest = json!({ "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": [layer] });
    let manifest = source.add(&MediaType::ImageManifest, manifest.to_string().as_bytes());
    source.resolve(manifest);
}

/// Bytes as a reference. A parsed reference is printed unchanged.
pub fn reference(text: &str) {
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(reference.to_string(), text);
    }
}

/// Bytes as an archive of an image, in a file of `dir`.
pub fn bundle(bytes: &[u8], dir: &Path) {
    let path = dir.join("bundle.tar");
    std::fs::write(&path, bytes).expect("writing the archive");
    let opened = OciArchive::open(&path).map(|archive| resolve_any(&archive)).err();
    let saved = DockerArchive::open(&path).map(|archive| resolve_any(&archive)).err();
    for error in [opened, saved].into_iter().flatten() {
        assert!(error.kind() != Kind::System, "{error}");
    }
}

/// Bytes as a layer of `media_type`, extracted to the empty directory `dir`. An accepted layer must match its record.
pub fn layer(bytes: &[u8], media_type: &str, diff_id: Digest, dir: &Path) {
    let layer = Layer::new(Digest::of(bytes), bytes.len() as u64, &media_type.into(), diff_id);
    let open = || -> std::io::Result<(Dir, File)> {
        std::fs::create_dir(dir.join("root"))?;
        let record = File::options().read(true).write(true).create_new(true).open(dir.join("record"))?;
        Ok((Dir::open_ambient_dir(dir.join("root"), ambient_authority())?, record))
    };
    let (root, record) = open().expect("a directory to extract to");
    let limits = Limits { bytes: 1 << 20, entries: 500, ..Limits::default() };
    let policy =
        Policy { devices: SpecialFilePolicy::Drop, set_id: SpecialFilePolicy::Drop, ..Policy::default() };
    let mut writer = RecordWriter::new(&record);
    let extracted =
        extract(Blob::memory(bytes.to_vec()), &layer, &root, &mut |line| writer.write(line), limits, policy);
    match extracted.and_then(|totals| writer.finish(totals)) {
        Err(error) => assert!(error.kind() != Kind::System, "{error}"),
        Ok(seal) => {
            let record = File::open(dir.join("record")).expect("the record");
            verify(&root, &record, &seal).expect("the extracted layer matches its record");
        }
    }
}
