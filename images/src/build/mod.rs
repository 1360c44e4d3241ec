//! Reproducible builds: the default image from one program ([`measure`]), and other images from directories, archives or an existing image.
//!
//! The same files give the same image, on every machine: entries are sorted and share one owner and one timestamp, and the
//! version and level of the compressor are fixed.

mod changes;
mod measure;
mod on_top;

use invarlock_error::{Context as _, Kind};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

pub use changes::{Changes, parse_command, parse_pair, parse_time};
pub use measure::measure_image_digest;

use oci_spec::image::MediaType;

use crate::cas::{BlobSource as _, LockedLayout};
use crate::layer::create::{Options, create};
use crate::layer::limits::{LAYER_SIZE, Limits};
use crate::layer::{LeftOut, Policy};
use crate::oci::compression::MAGIC_LENGTH;
use crate::oci::descriptor::{architecture, descriptor, platform_descriptor};
use crate::oci::json::{parse, to_bytes};
use crate::oci::{Compression, Digest, Hashing};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::sbom::Sbom;
use crate::sbom::packages::Packages;
use crate::tar::{is_archive, read_error};
use crate::transport::import::copy_blobs;
use crate::transport::local::needed_consent;
use crate::transport::{LocalImages, ResolvedImage, resolve};
use crate::{Error, Result};

/// zstd level. Higher levels take many times as long for a tenth less size.
const LEVEL: i32 = 3;
/// Bytes passed to the compressor at once. They are fixed, so that its output depends only on the content.
const CHUNK: usize = 128 << 10;

/// How an image is built.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The name of the image, `NAME:TAG`.
    pub name: String,
    /// The base.
    pub base: Base,
    /// Directories or archives on top of it, lowest first.
    pub layers: Vec<PathBuf>,
    /// Changes of the configuration of the base.
    pub changes: Changes,
    /// What is done with contents that no container gets.
    pub policy: Policy,
    /// The timestamp of all files and the creation time of the image, in seconds since 1970. Without one, the timestamp is 0 and the image has
    /// no creation time.
    pub time: Option<u64>,
}

/// The base of a build.
#[derive(Clone, Debug)]
pub enum Base {
    /// An existing image.
    Image(Reference),
    /// A root directory, or a tar archive of one.
    Root(PathBuf),
}

/// An image that was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Built {
    /// The name of the image.
    pub reference: String,
    /// The manifest's digest.
    pub manifest_digest: Digest,
    /// The configuration's digest.
    pub config_digest: Digest,
    /// Size of all blobs in bytes.
    pub bytes: u64,
    /// What was left out of the directories.
    pub left_out: LeftOut,
}

/// A layer that was written.
struct Added {
    descriptor: Value,
    diff_id: Digest,
}

impl LocalImages {
    /// Builds an image. It gets its name when it is complete, extracted and on disk.
    pub fn build(&self, recipe: &Recipe, progress: Progress<'_>) -> Result<Built> {
        let tag = Reference::parse_new_tag(&recipe.name)?;
        let layout = self.layout.lock_shared()?;
        let store = rustix::fs::fstat(self.layout.dir()).context("reading the metadata of the store")?;
        let mut packages = Packages::default();
        let mut left_out = LeftOut::default();
        // An incomplete SBOM would be wrong: an image with unknown contents gets none.
        let (mut config, mut layers, mut sbom, root) = match &recipe.base {
            Base::Image(reference) => {
                let (config, layers, sbom) = self.base(&layout, reference, progress)?;
                (config, layers, sbom, None)
            }
            Base::Root(path) => (scratch(), Vec::new(), Some(Sbom::default()), Some(path)),
        };
        for path in root.into_iter().chain(&recipe.layers) {
            sbom = sbom.filter(|_| path.is_dir());
            let options = Options {
                time: recipe.time.unwrap_or(0),
                has_lower_layers: !layers.is_empty(),
                store: (store.st_dev, store.st_ino),
                policy: recipe.policy,
                progress,
            };
            let added = add_layer(&layout, path, options, &mut packages, &mut left_out)
                .with_context(|| format!("building an image from {}", path.display()))?;
            record_layer(&mut config, &added)?;
            layers.push(added.descriptor);
        }
        recipe.changes.apply(&mut config, recipe.time)?;
        let image = self.write_image(&layout, &config, layers)?;
        let extracted = self.extracted(&self.layout, &image, recipe.policy)?;
        let first_own = extracted.len() - recipe.layers.len();
        for (i, path) in (first_own..).zip(&recipe.layers).filter(|(_, path)| path.is_dir()) {
            on_top::replaces_no_link(&extracted[i], &extracted[..i])
                .with_context(|| format!("building an image from {}", path.display()))?;
        }
        // A whiteout can remove a package.
        sbom = sbom.filter(|_| extracted[first_own..].iter().all(|layer| layer.totals.removals == 0));
        layout.sync()?;
        let mut manifest =
            platform_descriptor(&MediaType::ImageManifest, &image.manifest_digest, image.manifest_size);
        needed_consent(&image.layers, &extracted, recipe.policy).add_to(&mut manifest);
        layout.tag(Some(&tag), manifest)?;
        if let Some(sbom) = sbom.and_then(|sbom| packages.add_to(sbom)) {
            let name = tag.split(':').next().unwrap_or_default();
            self.attach_sbom(&layout, name, (&image.manifest_digest, image.manifest_size), &sbom)?;
        }
        Ok(Built {
            reference: tag,
            manifest_digest: image.manifest_digest,
            config_digest: image.config_digest,
            bytes: image.bytes,
            left_out,
        })
    }

    /// The configuration, the layers and the SBOM of a base image. Its blobs are copied to the store.
    fn base(
        &self,
        layout: &LockedLayout<'_>,
        reference: &Reference,
        progress: Progress<'_>,
    ) -> Result<(Value, Vec<Value>, Option<Sbom>)> {
        self.with_source(reference, |source| {
            let image = resolve::resolve(source, reference)?;
            if !matches!(reference, Reference::Tag { .. } | Reference::Digest(_)) {
                copy_blobs(source, layout, &image, progress)?;
            }
            let config = source.json(&image.config_digest, image.config_size)?;
            let layers = image.layers.iter().map(|layer| {
                let media_type = layer.compression().map_or(MediaType::ImageLayer, Compression::media_type);
                descriptor(&media_type, &layer.digest, layer.size)
            });
            let sbom = self.sbom(&image.manifest_digest)?;
            Ok((parse(image.config_digest, &config)?, layers.collect(), sbom))
        })
    }

    /// Writes configuration and manifest, and resolves the image.
    fn write_image(
        &self,
        layout: &LockedLayout<'_>,
        config: &Value,
        layers: Vec<Value>,
    ) -> Result<ResolvedImage> {
        let config = to_bytes(config)?;
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "config": descriptor(&MediaType::ImageConfig, &Digest::of(&config), config.len() as u64),
            "layers": layers,
        }))?;
        layout.write_bytes(&config)?;
        let digest = layout.write_bytes(&manifest)?;
        resolve::resolve_manifest(&self.layout, digest, manifest.len() as u64)
    }
}

/// Writes a layer: a compressed archive of a directory, or an archive unchanged.
fn add_layer(
    layout: &LockedLayout<'_>,
    path: &Path,
    options: Options<'_>,
    packages: &mut Packages,
    left_out: &mut LeftOut,
) -> Result<Added> {
    let metadata = std::fs::metadata(path)
        .context("reading its metadata")
        .map_err(|error| error.with_kind(Kind::Input))?;
    if metadata.is_file() {
        return add_archive(layout, path, options.policy, options.progress);
    }
    let ((left, diff_id), digest, size) = layout.write_new_blob(|file| {
        let encoder = zstd::stream::write::Encoder::new(file, LEVEL).context("creating a zstd encoder")?;
        let mut hashing = Hashing::new(BufWriter::with_capacity(CHUNK, encoder));
        let left = create(path, options, packages, &mut hashing)?;
        let (writer, _, diff_id) = hashing.finish();
        let encoder = writer.into_inner().map_err(|error| error.into_error());
        encoder.and_then(|encoder| encoder.finish()).context("writing the layer")?;
        Ok((left, diff_id))
    })?;
    left_out.add(left);
    Ok(Added { descriptor: descriptor(&MediaType::ImageLayerZstd, &digest, size), diff_id })
}

/// Writes an archive unchanged as a layer. Its contents are checked when it is extracted.
fn add_archive(
    layout: &LockedLayout<'_>,
    path: &Path,
    policy: Policy,
    progress: Progress<'_>,
) -> Result<Added> {
    let reading = || format!("reading {}", path.display());
    let mut file = File::open(path).with_context(reading)?;
    let mut magic = [0; MAGIC_LENGTH];
    let read = file.read(&mut magic).with_context(reading)?;
    if let Some(command) = Compression::unsupported_decompressor(&magic[..read]) {
        return Err(Error::unsupported("its compression is not supported; supported: gzip and zstd")
            .with_hint(format!("decompress it first with `{command}`")));
    }
    let compression = Compression::from_magic(&magic[..read]);
    let ((), digest, size) = layout.write_new_blob(|target| {
        target.write_all(&magic[..read]).context("writing the layer")?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = file.read(&mut buffer).with_context(reading)?;
            if count == 0 {
                return Ok(());
            }
            target.write_all(&buffer[..count]).context("writing the layer")?;
            progress(count as u64);
        }
    })?;
    let blob = || Ok::<_, Error>(BufReader::with_capacity(CHUNK, layout.layout.blob(&digest, size)?));
    let mut start = Vec::new();
    compression.decompress(blob()?)?.take(512).read_to_end(&mut start).map_err(read_error)?;
    if !start.is_empty() && !is_archive(&start) {
        return Err(Error::integrity(format!("{} is not a tar archive, or is corrupt", path.display()))
            .with_hint("pass a directory, or a tar archive: uncompressed, or compressed with gzip or zstd"));
    }
    let max_bytes = Limits::default().max_archive(size, policy.layer_size);
    let mut hashing = Hashing::bounded(std::io::sink(), max_bytes);
    let hashed = hashing.read_all(compression.decompress(blob()?)?).map_err(read_error);
    hashed.map_err(|error| error.with_hint_if(Kind::Safety, LAYER_SIZE))?;
    let diff_id = hashing.finish().2;
    Ok(Added { descriptor: descriptor(&compression.media_type(), &digest, size), diff_id })
}

/// The configuration of an empty image.
fn scratch() -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [] },
    })
}

/// Adds a layer to a configuration, and to its history if it has one.
fn record_layer(config: &mut Value, added: &Added) -> Result<()> {
    let ids = config.pointer_mut("/rootfs/diff_ids").and_then(Value::as_array_mut);
    ids.ok_or_else(|| Error::integrity("the configuration of the base image has no list of layers"))?
        .push(json!(added.diff_id));
    if let Some(history) = config.get_mut("history").and_then(Value::as_array_mut) {
        history.push(json!({ "created_by": "invarlock runtime image build" }));
    }
    Ok(())
}
