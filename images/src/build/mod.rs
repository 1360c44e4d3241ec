//! Images made here: the default one from one file ([`measure`]), and others from a directory, an archive, or an image that is there.
//! The same things give the same image, wherever they lie and whoever makes it: archives are sorted, of one owner and one time, and packed
//! by one compressor at one level, whose version this project's lock file names.

mod changes;
mod linked;
mod measure;
mod on_top;
mod pack;
pub(crate) mod packages;
mod tar;

use invarlock_error::Context as _;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

pub use changes::{Changes, parse_command, parse_pair, parse_time};
pub(crate) use measure::Measure;
pub use pack::LeftOut;

use crate::blobs::Blobs;
use crate::digest::Hashing;
use crate::files::parse;
use crate::import::copy_blobs;
use crate::layout::Held;
use crate::manage::plain_tag;
use crate::packing::{MAGIC, Packing};
use crate::policy::{Bounds, Policy};
use crate::resolve::{self, CONFIG, LAYER_ZSTD, MANIFEST, architecture, platform};
use crate::sbom::Sbom;
use crate::{Digest, Error, Progress, Reference, ResolvedImage, Result, Store};
use pack::How;
use packages::Packages;

/// Of zstd. Higher ones take many times as long for a tenth of the size.
const LEVEL: i32 = 3;
/// What the compressor is given at once: its output then follows from the bytes alone.
const PIECE: usize = 128 << 10;

/// How an image is made.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The name it gets, `name:tag`.
    pub name: String,
    /// What it is made from.
    pub base: Base,
    /// Directories or archives on top of it, lowest first.
    pub layers: Vec<PathBuf>,
    /// What becomes other of the base's configuration.
    pub changes: Changes,
    /// What becomes of things that no container of ours gets.
    pub policy: Policy,
    /// The time of everything in it and of the image itself, in seconds since 1970; where there is none, 0 and none.
    pub time: Option<u64>,
}

/// What an image is made from.
#[derive(Clone, Debug)]
pub enum Base {
    /// An image that is there.
    Image(Reference),
    /// A root directory, or an archive of one.
    Root(PathBuf),
}

/// An image that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Built {
    /// Its name.
    pub reference: String,
    /// The manifest's digest.
    pub manifest_digest: Digest,
    /// The configuration's digest.
    pub config_digest: Digest,
    /// Size of all its blobs.
    pub bytes: u64,
    /// What of the directories is not in it.
    pub left_out: LeftOut,
}

/// A layer that was written.
struct Added {
    descriptor: Value,
    diff_id: Digest,
}

impl Store {
    /// Makes an image. It has its name only when it is whole, unpacked and on disk.
    pub fn build(&self, recipe: &Recipe, progress: Progress<'_>) -> Result<Built> {
        let tag = plain_tag(&recipe.name)?;
        let held = self.layout.shared()?;
        let own = rustix::fs::fstat(self.layout.dir())
            .map_err(|error| Error::system(format!("looking at the store: {error}")))?;
        let mut packages = Packages::default();
        let mut left_out = LeftOut::default();
        // A bill that lists a part would be a false one: what stands on something unknown, or holds something unread, has none.
        let (mut config, mut layers, mut bill, root) = match &recipe.base {
            Base::Image(reference) => {
                let (config, layers, bill) = self.base(&held, reference, progress)?;
                (config, layers, bill, None)
            }
            Base::Root(path) => (scratch(), Vec::new(), Some(Sbom::default()), Some(path)),
        };
        for path in root.into_iter().chain(&recipe.layers) {
            bill = bill.filter(|_| path.is_dir());
            let how = How {
                time: recipe.time.unwrap_or(0),
                on_top: !layers.is_empty(),
                store: (own.st_dev, own.st_ino),
                policy: recipe.policy,
                progress,
            };
            let added = layer(&held, path, how, &mut packages, &mut left_out)
                .map_err(|error| error.context(format_args!("building an image from {}", path.display())))?;
            note_layer(&mut config, &added)?;
            layers.push(added.descriptor);
        }
        recipe.changes.apply(&mut config, recipe.time)?;
        let image = self.write(&held, &config, layers)?;
        let trees = self.unpacked(&self.layout, &image, recipe.policy)?;
        let first_own = trees.len() - recipe.layers.len();
        for (i, path) in (first_own..).zip(&recipe.layers).filter(|(_, path)| path.is_dir()) {
            on_top::replaces_no_link(&trees[i], &trees[..i])
                .map_err(|error| error.context(format_args!("building an image from {}", path.display())))?;
        }
        // What is taken away may be a package.
        bill = bill.filter(|_| trees[first_own..].iter().all(|it| it.totals.removals == 0));
        held.sync()?;
        held.tag(Some(&tag), descriptor(MANIFEST, &image.manifest_digest, image.manifest_size, true))?;
        if let Some(bill) = bill.and_then(|it| packages.list(it)) {
            let name = tag.split(':').next().unwrap_or_default();
            self.attach(&held, name, (&image.manifest_digest, image.manifest_size), &bill)?;
        }
        Ok(Built {
            reference: tag,
            manifest_digest: image.manifest_digest,
            config_digest: image.config_digest,
            bytes: image.bytes,
            left_out,
        })
    }

    /// The configuration and the layers of an image to build on; its blobs are in the store afterwards.
    fn base(
        &self,
        held: &Held<'_>,
        reference: &Reference,
        progress: Progress<'_>,
    ) -> Result<(Value, Vec<Value>, Option<Sbom>)> {
        self.with_source(reference, |source| {
            let image = resolve::resolve(source, reference)?;
            if !matches!(reference, Reference::Tag { .. } | Reference::Digest(_)) {
                copy_blobs(source, held, &image, progress)?;
            }
            let config = source.json(&image.config_digest, image.config_size)?;
            let layers = image.layers.iter().map(|layer| {
                descriptor(layer.packing().map_or("", Packing::media_type), &layer.digest, layer.size, false)
            });
            let bill = self.bill(&image.manifest_digest)?;
            Ok((parse(image.config_digest, &config)?, layers.collect(), bill))
        })
    }

    /// Writes configuration and manifest, and resolves what they make.
    fn write(&self, held: &Held<'_>, config: &Value, layers: Vec<Value>) -> Result<ResolvedImage> {
        let config = bytes(config)?;
        let manifest = bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &Digest::of(&config), config.len() as u64, false),
            "layers": layers,
        }))?;
        put_bytes(held, &config)?;
        let digest = put_bytes(held, &manifest)?;
        resolve::of_manifest(&self.layout, digest, manifest.len() as u64)
    }
}

/// Writes a layer from a directory, packed; or from an archive, as it is.
fn layer(
    held: &Held<'_>,
    path: &Path,
    how: How<'_>,
    packages: &mut Packages,
    left_out: &mut LeftOut,
) -> Result<Added> {
    let metadata =
        std::fs::metadata(path).map_err(|error| Error::input(format!("looking at it: {error}")))?;
    if metadata.is_file() {
        return archive(held, path, how.progress);
    }
    let ((left, diff_id), digest, size) = held.add(|to| {
        let encoder = zstd::stream::write::Encoder::new(to, LEVEL).context("making room to compress")?;
        let mut hashing = Hashing::new(BufWriter::with_capacity(PIECE, encoder));
        let left = pack::pack(path, how, packages, &mut hashing)?;
        let (packed, _, diff_id) = hashing.finish();
        let encoder = packed.into_inner().map_err(|error| error.into_error());
        encoder.and_then(|encoder| encoder.finish()).context("writing the layer")?;
        Ok((left, diff_id))
    })?;
    left_out.add(left);
    Ok(Added { descriptor: descriptor(LAYER_ZSTD, &digest, size, false), diff_id })
}

/// An archive is a layer byte for byte. What is in it is judged when it is unpacked.
fn archive(held: &Held<'_>, path: &Path, progress: Progress<'_>) -> Result<Added> {
    let reading = || format!("reading {}", path.display());
    let mut file = File::open(path).context(reading())?;
    let mut magic = [0; MAGIC];
    let read = file.read(&mut magic).context(reading())?;
    if let Some(packed) = Packing::foreign(&magic[..read]) {
        return Err(Error::unsupported(format!(
            "it is packed otherwise than images are (gzip, zstd); unpack it first with `{packed}`"
        )));
    }
    let packing = Packing::by_magic(&magic[..read]);
    let ((), digest, size) = held.add(|to| {
        to.write_all(&magic[..read]).context("writing the layer")?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = file.read(&mut buffer).context(reading())?;
            if count == 0 {
                return Ok(());
            }
            to.write_all(&buffer[..count]).context("writing the layer")?;
            progress(count as u64);
        }
    })?;
    let blob = BufReader::with_capacity(PIECE, held.layout.blob(&digest, size)?);
    let mut hashing = Hashing::bounded(std::io::sink(), Bounds::default().most(size));
    let unpacked = packing.open(blob)?;
    hashing.read_all(unpacked).map_err(crate::archive::damaged)?;
    let diff_id = hashing.finish().2;
    Ok(Added { descriptor: descriptor(packing.media_type(), &digest, size, false), diff_id })
}

/// The configuration of an image with nothing in it.
fn scratch() -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [] },
    })
}

/// Names a further layer in a configuration; where that tells its history, the layer gets a line of it.
fn note_layer(config: &mut Value, added: &Added) -> Result<()> {
    let ids = config.pointer_mut("/rootfs/diff_ids").and_then(Value::as_array_mut);
    ids.ok_or_else(|| Error::integrity("the base's configuration names no layers"))?
        .push(json!(added.diff_id));
    if let Some(history) = config.get_mut("history").and_then(Value::as_array_mut) {
        history.push(json!({ "created_by": "invarlock runtime image build" }));
    }
    Ok(())
}

pub(crate) fn bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::system(format!("writing JSON: {error}")))
}

/// Writes a small blob.
pub(crate) fn put_bytes(held: &Held<'_>, bytes: &[u8]) -> Result<Digest> {
    let digest = Digest::of(bytes);
    held.put(&digest, bytes.len() as u64, |to| to.write_all(bytes))?;
    Ok(digest)
}

pub(crate) fn descriptor(media_type: &str, digest: &Digest, size: u64, with_platform: bool) -> Value {
    let mut it = json!({ "mediaType": media_type, "digest": digest, "size": size });
    if with_platform {
        it["platform"] = platform();
    }
    it
}
