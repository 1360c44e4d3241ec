//! The default image: one static program and the mount points. The digest of the image depends only on the bytes of the program.

use invarlock_error::Context as _;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::path::Path;

use serde_json::{Value, json};

use oci_spec::image::MediaType;

use crate::cas::{BlobSource as _, LockedLayout};
use crate::layer::Policy;
use crate::oci::descriptor::{architecture, descriptor, platform_descriptor};
use crate::oci::json::to_bytes;
use crate::oci::manifest::LABEL;
use crate::oci::{Digest, Hashing};
use crate::reference::Reference;
use crate::sbom::{Sbom, crates};
use crate::transport::LocalImages;
use crate::{Error, Result};

/// The name of the default image in its SBOM.
const NAME: &str = "invarlock-runtime";

/// Name of the program in the image.
const PROGRAM: &str = "invarlock-evaluator";
/// Directories of the image: mount points, and the one in which the matrix library looks for the sizes of processor caches. It is empty, so
/// that the library uses its own sizes, which are the same on every machine, and does not start lscpu.
const DIRECTORIES: [&str; 10] = [
    "dev/",
    "etc/",
    "in/",
    "out/",
    "proc/",
    "sys/",
    "sys/devices/",
    "sys/devices/system/",
    "sys/devices/system/cpu/",
    "tmp/",
];
/// Most bytes of the program.
const MAX_SIZE: u64 = 1 << 30;

/// The default image before it is written.
struct MeasureImage {
    program: File,
    size: u64,
    layer: (Digest, u64),
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl MeasureImage {
    /// Reads the program once and computes every digest.
    pub fn compute(evaluator: &Path) -> Result<Self> {
        let reading = || format!("reading evaluator {}", evaluator.display());
        let program = File::open(evaluator).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::from(error).with_kind(invarlock_error::Kind::Input).context(reading())
            }
            _ => Error::from(error).context(reading()),
        })?;
        let metadata = program.metadata().with_context(reading)?;
        if !metadata.is_file() || metadata.len() == 0 || metadata.len() > MAX_SIZE {
            return Err(Error::input(format!(
                "evaluator {} is not a file of 1 byte to 1 GiB",
                evaluator.display()
            )));
        }
        let size = metadata.len();
        let mut hashing = Hashing::new(io::sink());
        write_layer(&program, size, &mut hashing).with_context(reading)?;
        let (_, length, digest) = hashing.finish();
        let config = to_bytes(&config(&digest))?;
        let manifest = to_bytes(&manifest((&digest, length), &config))?;
        Ok(Self { program, size, layer: (digest, length), config, manifest })
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The size of the manifest in bytes.
    pub fn manifest_size(&self) -> u64 {
        self.manifest.len() as u64
    }

    /// The SBOM of the program.
    pub fn sbom(&self) -> Result<Sbom> {
        crates::sbom(&self.program)
    }

    /// Writes the blobs, and then gives the image its tag.
    pub fn write(&self, layout: &LockedLayout<'_>, tag: &str) -> Result<()> {
        let (digest, length) = &self.layer;
        layout.write_blob(digest, *length, |to| write_layer(&self.program, self.size, to))?;
        for document in [&self.config, &self.manifest] {
            layout.write_bytes(document)?;
        }
        layout.sync()?;
        layout.tag(
            Some(tag),
            platform_descriptor(&MediaType::ImageManifest, &self.digest(), self.manifest_size()),
        )
    }
}

/// The digest of the default image of an evaluator.
pub fn measure_image_digest(evaluator: &Path) -> Result<Digest> {
    MeasureImage::compute(evaluator).map(|image| image.digest())
}

impl LocalImages {
    /// Builds the default image from `evaluator` with the name `reference`, a `NAME:TAG`. Existing parts are verified, and corrupt ones
    /// replaced; if everything is correct, nothing is written. Returns the digest of the manifest.
    pub fn build_measure_image(&self, evaluator: &Path, reference: &str) -> Result<Digest> {
        let parsed = Reference::parse(reference)?;
        let (Reference::Tag { digest: None, .. }, Some(tag)) = (&parsed, parsed.index_tag()) else {
            return Err(Error::input(format!("{reference:?} cannot be the name of a built image"))
                .with_hint("name it like NAME:TAG"));
        };
        let image = MeasureImage::compute(evaluator)?;
        let digest = image.digest();
        let layout = self.layout.lock_shared()?;
        if self.is_valid(&parsed, &digest) {
            // The SBOM may be missing or corrupt.
            if !matches!(self.sbom(&digest), Ok(Some(_))) {
                self.attach_sbom(&layout, NAME, (&digest, image.manifest_size()), &image.sbom()?)?;
            }
            return Ok(digest);
        }
        image.write(&layout, &tag)?;
        for layer in &self.resolve(&parsed)?.layers {
            if self.verify_extracted(layer).is_err() {
                self.rootfs.discard(&layer.diff_id)?;
                self.rootfs.get(&self.layout, std::slice::from_ref(layer), Policy::default())?;
            }
        }
        self.attach_sbom(&layout, NAME, (&digest, image.manifest_size()), &image.sbom()?)?;
        Ok(digest)
    }

    /// Whether `reference` has this digest, and every blob and extracted layer is correct.
    fn is_valid(&self, reference: &Reference, digest: &Digest) -> bool {
        self.resolve(reference).is_ok_and(|image| {
            image.manifest_digest == *digest
                && image.layers.iter().all(|layer| {
                    self.layout.has_valid_blob(&layer.digest, layer.size)
                        && self.verify_extracted(layer).is_ok()
                })
        })
    }
}

/// Writes the layer: sorted, owned by root, with the timestamp 0 and fixed modes.
fn write_layer(mut program: &File, size: u64, to: &mut dyn Write) -> io::Result<()> {
    program.seek(io::SeekFrom::Start(0))?;
    let mut names: Vec<&str> = DIRECTORIES.to_vec();
    names.push(PROGRAM);
    names.sort_unstable();
    let mut tar = ::tar::Builder::new(to);
    for name in names {
        let mut header = ::tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if name == PROGRAM {
            header.set_entry_type(::tar::EntryType::Regular);
            header.set_mode(0o555);
            header.set_size(size);
            header.set_cksum();
            let mut content = program.take(size);
            tar.append(&header, &mut content)?;
            // The builder does not compare the content with the size in the header.
            if content.limit() != 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        } else {
            header.set_entry_type(::tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            header.set_cksum();
            tar.append(&header, io::empty())?;
        }
    }
    tar.finish()
}

fn config(diff_id: &Digest) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": "65532:65532",
            "Entrypoint": [format!("/{PROGRAM}")],
            "WorkingDir": "/",
            "Labels": { LABEL: "measure" },
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    })
}

fn manifest((layer, length): (&Digest, u64), config: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest,
        "config": descriptor(&MediaType::ImageConfig, &Digest::of(config), config.len() as u64),
        "layers": [descriptor(&MediaType::ImageLayer, layer, length)],
    })
}
