//! From a reference to an image: index → manifest → config, each verified, and each of one kind only.

use invarlock_error::Context as _;
use invarlock_error::Kind;
use oci_spec::image::{Arch, Config, Descriptor, ImageIndex, ImageManifest, Os, RootFs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::blobs::{Blobs, TAG};
use crate::digest::Hashing;
use crate::files::{parse, refuse_keys};
use crate::packing::Packing;
use crate::policy::Bounds;
use crate::{Digest, Error, Reference, Result};

pub(crate) const LABEL: &str = "org.invarlock.speaks";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// In the index of a store: the digest of the registry's index that an image was chosen from.
pub(crate) const CHOSEN_FROM: &str = "org.invarlock.chosen-from";

/// Layers that a run can mount.
pub(crate) const MOST_LAYERS: usize = 128;
/// Indexes within indexes.
const DEEPEST: u32 = 2;

/// The architecture's name in images.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The platform of our images, as a descriptor has it.
pub(crate) fn platform() -> Value {
    json!({ "architecture": architecture(), "os": "linux" })
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Layer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob.
    pub size: u64,
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the unpacked archive.
    pub diff_id: Digest,
}

impl Layer {
    /// Compares what was read of a blob with what the manifest says of it.
    pub(crate) fn is_blob<T>(&self, read: Hashing<T>) -> Result<()> {
        let (_, size, digest) = read.finish();
        match (size, digest) == (self.size, self.digest) {
            true => Ok(()),
            false => Err(Error::integrity(format!(
                "blob {} holds {size} bytes with digest {digest}: it was altered or is damaged",
                self.digest
            ))),
        }
    }

    /// Reads and verifies the blob where it lies.
    pub(crate) fn verify_in(&self, source: &dyn Blobs) -> Result<()> {
        let mut hashing = Hashing::bounded((), self.size);
        hashing
            .read_all(source.blob(&self.digest, self.size)?)
            .context(format_args!("reading blob {}", self.digest))?;
        self.is_blob(hashing)
    }

    pub(crate) fn packing(&self) -> Result<Packing> {
        Packing::of(&self.media_type).ok_or_else(|| {
            Error::unsupported(format!(
                "layer {} has media type {}; plain, gzip and zstd are known",
                self.digest, self.media_type
            ))
        })
    }
}

/// What a reference means, verified down to the configuration; the layers are verified when they are unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ResolvedImage {
    /// What was asked for.
    pub reference: Reference,
    /// The manifest's digest: the image's name for good.
    pub manifest_digest: Digest,
    /// The manifest's size.
    pub manifest_size: u64,
    /// The configuration's digest.
    pub config_digest: Digest,
    /// The configuration's size.
    pub config_size: u64,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// What the image speaks, by its label: `measure`, `delegate`.
    pub speaks: Option<String>,
    /// The program and first arguments.
    pub entrypoint: Vec<String>,
    /// The image's environment.
    pub env: Vec<(String, String)>,
    /// The working directory; absolute.
    pub cwd: String,
    /// The image's user, which the boundary does not obey.
    pub user: Option<String>,
    /// Size of all blobs.
    pub bytes: u64,
}

pub(crate) fn resolve(source: &dyn Blobs, reference: &Reference) -> Result<ResolvedImage> {
    from_manifest(source, reference.clone(), &descriptor(source, reference)?)
}

/// The image of a manifest that is there.
pub(crate) fn of_manifest(source: &dyn Blobs, digest: Digest, size: u64) -> Result<ResolvedImage> {
    let descriptor = crate::build::descriptor(MANIFEST, &digest, size, true);
    let descriptor = parse("a descriptor", descriptor.to_string().as_bytes())?;
    from_manifest(source, Reference::Digest(digest), &descriptor)
}

/// The descriptor of the manifest for this machine that a reference means.
pub(crate) fn descriptor(source: &dyn Blobs, reference: &Reference) -> Result<Descriptor> {
    to_manifest(source, find(source, reference)?, DEEPEST)
}

/// Whether a descriptor of an index is of something that belongs to an image, and is none.
pub(crate) fn is_artifact(descriptor: &Descriptor) -> bool {
    descriptor.artifact_type().is_some()
}

pub(crate) fn is_index(descriptor: &Descriptor) -> bool {
    [INDEX, DOCKER_LIST].contains(&descriptor.media_type().to_string().as_str())
}

/// The one descriptor of the index that a reference means.
pub(crate) fn find(source: &dyn Blobs, reference: &Reference) -> Result<Descriptor> {
    let index = source.index()?;
    let (tag, digest) = (reference.tag_in_index(), reference.digest());
    let tag_of = |it: &Descriptor| it.annotations().as_ref().and_then(|all| all.get(TAG)).cloned();
    let name_fits = |it: &Descriptor| match reference {
        Reference::Tag { name, tag: None, .. } => {
            tag_of(it).is_some_and(|tag| tag.split_once(':').is_some_and(|(other, _)| other == name))
        }
        _ => true,
    };
    let mut found: Vec<&Descriptor> = index
        .manifests()
        .iter()
        .filter(|it| !is_artifact(it))
        .filter(|it| match &tag {
            Some(tag) => tag_of(it).is_some_and(|it| is_named(&it, tag, reference)),
            None => digest.is_none_or(|digest| is_digest(it, &digest, reference)) && name_fits(it),
        })
        .collect();
    found.sort_by_key(|it| it.digest().to_string());
    found.dedup_by_key(|it| it.digest().to_string());
    match found.as_slice() {
        [one] => match digest {
            Some(wanted) if !is_digest(one, &wanted, reference) => {
                Err(Error::integrity(format!("{reference}: the tag is {}, not {wanted}", one.digest()))
                    .with_hint("name the image by the digest it has"))
            }
            // The index it was chosen from is read again: what it is said to be is not believed.
            Some(wanted) if one.digest().to_string() != wanted.to_string() => chosen_from(source, &wanted),
            _ => Ok((*one).clone()),
        },
        [] if matches!(reference, Reference::Registry(_)) => Err(Error::input(format!(
            "it is not in the store; pull it first, `invarlock runtime image pull {reference} --allow-network`, or give this command \
             --allow-network where it has that option"
        ))),
        [] => {
            let names: Vec<String> = index.manifests().iter().filter_map(tag_of).take(10).collect();
            let there = if names.is_empty() { "no named image".to_owned() } else { names.join(", ") }; // join: for people
            Err(Error::input(format!("image {reference} is not there; there is {there}")))
        }
        several => {
            let digests: Vec<String> = several.iter().map(|it| it.digest().to_string()).collect();
            Err(Error::input(format!(
                "{reference} could mean any of {}; name one by its digest",
                digests.join(", ")
            )))
        }
    }
}

/// Whether a descriptor is that of a digest. What was pulled is known by the digest of the index it was chosen from, too.
fn is_digest(it: &Descriptor, digest: &Digest, reference: &Reference) -> bool {
    let chosen_from = || it.annotations().as_ref().and_then(|all| all.get(CHOSEN_FROM)).cloned();
    it.digest().to_string() == digest.to_string()
        || matches!(reference, Reference::Registry(_)) && chosen_from() == Some(digest.to_string())
}

fn chosen_from(source: &dyn Blobs, digest: &Digest) -> Result<Descriptor> {
    let size = source.open(digest).map_err(|error| error.context(format_args!("index {digest}")))?.len();
    let digest = oci_spec::image::Digest::try_from(digest.to_string())
        .map_err(|error| Error::system(format!("writing a digest: {error}")))?;
    Ok(Descriptor::new(INDEX.into(), size, digest))
}

/// Whether the name in an index is the one asked for. What Docker's archives name may have been spelled out by who wrote them.
fn is_named(name: &str, asked: &str, reference: &Reference) -> bool {
    let spelled_out = matches!(reference, Reference::DockerArchive { .. });
    name == asked || spelled_out && name.strip_prefix("docker.io/library/") == Some(asked)
}

/// Follows indexes to the manifest for this machine.
fn to_manifest(source: &dyn Blobs, descriptor: Descriptor, deeper: u32) -> Result<Descriptor> {
    match descriptor.media_type().to_string().as_str() {
        MANIFEST | DOCKER_MANIFEST => return Ok(descriptor),
        INDEX | DOCKER_LIST if deeper > 0 => {}
        INDEX | DOCKER_LIST => {
            return Err(Error::safety("indexes within indexes, deeper than any image needs"));
        }
        other => {
            return Err(Error::unsupported(format!(
                "{} has media type {other}, which is no image's",
                descriptor.digest()
            )));
        }
    }
    let what = format!("index {}", descriptor.digest());
    let bytes = source.json(&digest_of(&descriptor)?, descriptor.size())?;
    refuse_keys(&what, &bytes, &["layers", "config"])?;
    let index: ImageIndex = parse(&what, &bytes)?;
    let ours: Vec<&Descriptor> = index
        .manifests()
        .iter()
        .filter(|it| {
            it.platform().as_ref().is_some_and(|it| {
                it.os().to_string() == "linux" && it.architecture().to_string() == architecture()
            })
        })
        .collect();
    match ours.as_slice() {
        [one] => to_manifest(source, (*one).clone(), deeper - 1),
        [] => Err(Error::unsupported(format!("{what} has no image for linux/{}", architecture()))),
        several => {
            let digests: Vec<String> = several.iter().map(|it| it.digest().to_string()).collect();
            Err(Error::input(format!(
                "{what} has several images for linux/{}: {}",
                architecture(),
                digests.join(", ")
            )))
        }
    }
}

pub(crate) fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    written_digest(descriptor.digest().as_ref())
}

/// A digest that a document has, and no user typed.
pub(crate) fn written_digest(text: &str) -> Result<Digest> {
    Digest::parse(text).map_err(|error| match error.kind() {
        Kind::Input => error.with_kind(Kind::Integrity),
        _ => error,
    })
}

fn from_manifest(source: &dyn Blobs, reference: Reference, descriptor: &Descriptor) -> Result<ResolvedImage> {
    let manifest_digest = digest_of(descriptor)?;
    let what = format!("manifest {manifest_digest}");
    let bytes = source.json(&manifest_digest, descriptor.size())?;
    refuse_keys(&what, &bytes, &["manifests", "fsLayers"])?;
    let manifest: ImageManifest = parse(&what, &bytes)?;
    if manifest.schema_version() != 2 {
        return Err(Error::unsupported(format!(
            "{what} has schema version {}; 2 is known",
            manifest.schema_version()
        )));
    }
    if manifest.media_type().as_ref().is_some_and(|it| it.to_string() != descriptor.media_type().to_string())
    {
        return Err(Error::integrity(format!("{what} says another media type than its descriptor")));
    }
    let config_type = manifest.config().media_type().to_string();
    if config_type != CONFIG && config_type != DOCKER_CONFIG {
        return Err(Error::unsupported(format!(
            "{what} has a configuration of media type {config_type}, which is no image's"
        )));
    }
    let config_digest = digest_of(manifest.config())?;
    let config: Configuration = parse(
        format_args!("config {config_digest}"),
        &source.json(&config_digest, manifest.config().size())?,
    )?;
    let (os, arch) = (config.os.to_string(), config.architecture.to_string());
    if (os.as_str(), arch.as_str()) != ("linux", architecture()) {
        return Err(Error::unsupported(format!(
            "{what} is for {os}/{arch}; this machine runs linux/{}",
            architecture()
        )));
    }
    let layers = layers(&what, &manifest, &config)?;
    // Sizes are what somebody wrote.
    let sizes =
        [descriptor.size(), manifest.config().size()].into_iter().chain(layers.iter().map(|it| it.size));
    let bytes = sizes.fold(0, u64::saturating_add);
    let run = config.config.unwrap_or_default();
    let env = run
        .env()
        .iter()
        .flatten()
        .filter_map(|it| it.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
    Ok(ResolvedImage {
        reference,
        manifest_digest,
        manifest_size: descriptor.size(),
        config_digest,
        config_size: manifest.config().size(),
        layers,
        speaks: run.labels().as_ref().and_then(|labels| labels.get(LABEL)).cloned(),
        entrypoint: run.entrypoint().clone().unwrap_or_default(),
        env: env.collect(),
        cwd: run.working_dir().clone().filter(|it| !it.is_empty()).unwrap_or_else(|| "/".to_owned()),
        user: run.user().clone(),
        bytes,
    })
}

/// What of a configuration means something here. Its history does not, and could be long.
#[derive(Deserialize)]
pub(crate) struct Configuration {
    architecture: Arch,
    os: Os,
    config: Option<Config>,
    pub rootfs: RootFs,
}

fn layers(what: &str, manifest: &ImageManifest, config: &Configuration) -> Result<Vec<Layer>> {
    let diff_ids = config.rootfs.diff_ids();
    if diff_ids.len() != manifest.layers().len() {
        let (blobs, ids) = (manifest.layers().len(), diff_ids.len());
        return Err(Error::integrity(format!(
            "{what} has {blobs} layers, but its configuration names {ids}"
        )));
    }
    if diff_ids.is_empty() || diff_ids.len() > MOST_LAYERS {
        return Err(Error::unsupported(format!(
            "{what} has {} layers; 1 to {MOST_LAYERS} can be mounted",
            diff_ids.len()
        )));
    }
    let layer = |(blob, diff_id): (&Descriptor, &String)| {
        let media_type = blob.media_type().to_string();
        let most = Bounds::default().bytes;
        if blob.size() > most {
            return Err(Error::safety(format!(
                "{what}: layer {} is said to have {} bytes; {most} are the most",
                blob.digest(),
                blob.size()
            )));
        }
        let layer = Layer {
            digest: digest_of(blob)?,
            size: blob.size(),
            media_type,
            diff_id: written_digest(diff_id)?,
        };
        layer.packing().map(|_| layer)
    };
    manifest.layers().iter().zip(diff_ids).map(layer).collect()
}
