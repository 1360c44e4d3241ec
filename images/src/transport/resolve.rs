//! Resolution of a reference to an image: index, manifest and configuration. Each document is verified by its digest, and refused if it
//! could be read as another kind of document.

use invarlock_error::{Context as _, bail};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::Serialize;

use super::platform;
use crate::cas::BlobSource;
use crate::layer::limits::Limits;
use crate::oci::descriptor::{
    CHOSEN_FROM, CONTAINERD_NAME, TAG, annotation, architecture, digest_of, is_artifact, platform_descriptor,
};
use crate::oci::json::{parse, refuse_keys};
use crate::oci::manifest::{Configuration, LABEL, MAX_LAYERS};
use crate::oci::media_type::{is_config, is_index, is_manifest};
use crate::oci::{Digest, Layer};
use crate::reference::Reference;
use crate::{Error, Result};

/// Most indexes within indexes.
const MAX_INDEX_DEPTH: u32 = 2;

/// An image that a reference was resolved to. It is verified down to the configuration; layers are verified when they are extracted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ResolvedImage {
    /// The reference that was resolved.
    pub reference: Reference,
    /// The digest of the manifest, which identifies the image.
    pub manifest_digest: Digest,
    /// The size of the manifest in bytes.
    pub manifest_size: u64,
    /// The digest of the configuration.
    pub config_digest: Digest,
    /// The size of the configuration in bytes.
    pub config_size: u64,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// The protocol of the image by its label: `measure` or `delegate`.
    pub speaks: Option<String>,
    /// The program and its first arguments, to which those of the user are added.
    pub entrypoint: Vec<String>,
    /// The arguments if the user names none; the whole command if there is no entrypoint.
    pub cmd: Vec<String>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// The absolute path of the working directory.
    pub cwd: String,
    /// The configuration has no architecture or no operating system. Those of this machine are assumed.
    pub is_platform_assumed: bool,
    /// The user in the configuration, `USER[:GROUP]` by names or numbers. Measurements do not use it: the boundary decides their user.
    pub user: Option<String>,
    /// Size of all blobs in bytes.
    pub bytes: u64,
}

/// Resolves a reference to the image for this machine.
pub(crate) fn resolve(source: &dyn BlobSource, reference: &Reference) -> Result<ResolvedImage> {
    from_manifest(source, reference.clone(), &manifest_descriptor(source, reference)?)
}

/// The image of a manifest that exists in `source`.
pub(crate) fn resolve_manifest(source: &dyn BlobSource, digest: Digest, size: u64) -> Result<ResolvedImage> {
    let descriptor = platform_descriptor(&MediaType::ImageManifest, &digest, size);
    let descriptor = parse("a descriptor", descriptor.to_string().as_bytes())?;
    from_manifest(source, Reference::Digest(digest), &descriptor)
}

/// The descriptor of the manifest for this machine.
pub(crate) fn manifest_descriptor(source: &dyn BlobSource, reference: &Reference) -> Result<Descriptor> {
    follow_indexes(source, index_entry(source, reference)?, MAX_INDEX_DEPTH)
}

/// The one descriptor in the index of `source` that a reference means.
pub(crate) fn index_entry(source: &dyn BlobSource, reference: &Reference) -> Result<Descriptor> {
    let index = source.index()?;
    let (tag, digest) = (reference.index_tag(), reference.digest());
    let has_name = |entry: &Descriptor| match reference {
        Reference::Tag { name, tag: None, .. } => annotation(entry, TAG)
            .is_some_and(|tag| tag.split_once(':').is_some_and(|(found, _)| found == name)),
        _ => true,
    };
    let mut found: Vec<&Descriptor> = index
        .manifests()
        .iter()
        .filter(|entry| !is_artifact(entry) && !platform::is_attestation(entry))
        .filter(|entry| match &tag {
            Some(tag) => is_named(entry, tag, reference),
            None => digest.is_none_or(|digest| has_digest(entry, &digest, reference)) && has_name(entry),
        })
        .collect();
    found.sort_by_key(|entry| entry.digest().to_string());
    found.dedup_by_key(|entry| entry.digest().to_string());
    if found.len() > 1 {
        // Some writers list the images of all platforms in the layout itself.
        found.retain(|entry| !platform::is_of_another_machine(entry));
    }
    match found.as_slice() {
        [one] => match digest {
            Some(wanted) if !has_digest(one, &wanted, reference) => Err(Error::integrity(format!(
                "{reference}: the tag has digest {}, not {wanted}",
                one.digest()
            ))
            .with_hint("use the digest that the tag has")),
            // The image was chosen from this index. The annotation is not trusted: the index is read again.
            Some(wanted) if one.digest().to_string() != wanted.to_string() => stored_index(source, &wanted),
            _ => Ok((*one).clone()),
        },
        [] => match digest.filter(|_| tag.is_none()) {
            Some(wanted) => {
                nested_entry(source, &index, &wanted)?.ok_or_else(|| not_found(reference, &index))
            }
            None => Err(not_found(reference, &index)),
        },
        several => Err(Error::input(format!("{reference} is ambiguous: {}", digests(several)))
            .with_hint("name one of the images by its digest")),
    }
}

/// The descriptor with a digest in one of the indexes that `index` lists. An index in the layout that is corrupt is passed over here: it is
/// an error for those who name it.
fn nested_entry(source: &dyn BlobSource, index: &ImageIndex, digest: &Digest) -> Result<Option<Descriptor>> {
    let is_wanted = |entry: &&Descriptor| entry.digest().to_string() == digest.to_string();
    for entry in index.manifests().iter().filter(|entry| is_index(entry.media_type())) {
        let Ok(bytes) = source.json(&digest_of(entry)?, entry.size()) else { continue };
        let nested: ImageIndex = parse(format_args!("index {}", entry.digest()), &bytes)?;
        if let Some(found) = nested.manifests().iter().find(is_wanted) {
            return Ok(Some(found.clone()));
        }
    }
    Ok(None)
}

fn not_found(reference: &Reference, index: &ImageIndex) -> Error {
    if matches!(reference, Reference::Registry(_)) {
        return Error::input("it is not in the store").with_hint(format!(
            "pull it first with `invarlock runtime image pull {reference} --allow-network`, or pass --allow-network to this command if it has \
             that option"
        ));
    }
    if let Reference::Tag { name, tag: Some(_), .. } = reference {
        let is_of_name = |tag: &&str| tag.split_once(':').is_some_and(|(found, _)| found == name);
        let mut tags: Vec<&str> = tags(index).filter(is_of_name).collect();
        tags.sort_unstable();
        if !tags.is_empty() {
            return Error::input(format!("it is not in the store, which contains: {}", tags.join(", ")))
                .with_hint("name one of these, or import or pull the image");
        }
    }
    let images = || index.manifests().iter().filter(|entry| !is_artifact(entry));
    let tags: Vec<&str> = tags(index).take(10).collect();
    let contents = match tags.is_empty() {
        true if images().next().is_none() => "no image".to_owned(),
        true => "only images without a name".to_owned(),
        false => tags.join(", "),
    };
    let (place, hint) = match reference {
        Reference::Tag { .. } | Reference::Digest(_) | Reference::Registry(_) => (
            "store",
            "import it with `invarlock runtime image import`, or pull it with `invarlock runtime image pull`",
        ),
        Reference::Layout { .. } => ("layout", "use a name or digest that the layout contains"),
        Reference::Archive { .. } | Reference::DockerArchive { .. } => {
            ("archive", "use a name or digest that the archive contains")
        }
    };
    Error::input(format!("it is not in the {place}, which contains: {contents}")).with_hint(hint)
}

fn tags(index: &ImageIndex) -> impl Iterator<Item = &str> {
    let images = index.manifests().iter().filter(|entry| !is_artifact(entry));
    images.filter_map(|entry| annotation(entry, TAG))
}

fn digests(descriptors: &[&Descriptor]) -> String {
    let digests: Vec<&str> = descriptors.iter().map(|descriptor| descriptor.digest().as_ref()).collect();
    digests.join(", ")
}

/// Whether an entry of the index has this digest. A pulled image can also be named by the digest of the index from which it was chosen.
fn has_digest(entry: &Descriptor, digest: &Digest, reference: &Reference) -> bool {
    let digest = digest.to_string();
    entry.digest().to_string() == digest
        || matches!(reference, Reference::Registry(_)) && annotation(entry, CHOSEN_FROM) == Some(&digest)
}

fn stored_index(source: &dyn BlobSource, digest: &Digest) -> Result<Descriptor> {
    let size = source.open(digest).with_context(|| format!("index {digest}"))?.len();
    let digest = oci_spec::image::Digest::try_from(digest.to_string())
        .map_err(|error| Error::system(format!("writing a digest: {error}")).with_source(error))?;
    Ok(Descriptor::new(MediaType::ImageIndex, size, digest))
}

/// Whether the name of an entry in the index is the wanted one. In Docker archives, some writers prefix short names with the default registry.
/// containerd and BuildKit write the full name to an annotation of their own.
fn is_named(entry: &Descriptor, wanted: &str, reference: &Reference) -> bool {
    let can_be_prefixed = matches!(reference, Reference::DockerArchive { .. });
    let is_foreign = matches!(reference, Reference::Layout { .. } | Reference::Archive { .. });
    annotation(entry, TAG).is_some_and(|found| {
        found == wanted || can_be_prefixed && found.strip_prefix("docker.io/library/") == Some(wanted)
    }) || is_foreign && annotation(entry, CONTAINERD_NAME) == Some(wanted)
}

/// Follows indexes to the manifest for this machine.
fn follow_indexes(source: &dyn BlobSource, descriptor: Descriptor, depth: u32) -> Result<Descriptor> {
    if is_manifest(descriptor.media_type()) {
        return Ok(descriptor);
    }
    if !is_index(descriptor.media_type()) {
        bail!(
            Unsupported,
            "{} has media type {}, which is not that of an image",
            descriptor.digest(),
            descriptor.media_type()
        );
    }
    let Some(depth) = depth.checked_sub(1) else {
        bail!(Safety, "indexes are nested deeper than an image needs");
    };
    let what = format!("index {}", descriptor.digest());
    let bytes = source.json(&digest_of(&descriptor)?, descriptor.size())?;
    refuse_keys(&what, &bytes, &["layers", "config"])?;
    let index: ImageIndex = parse(&what, &bytes)?;
    match platform::choose(index.manifests()) {
        Some(chosen) => follow_indexes(source, chosen.clone(), depth),
        None => Err(Error::unsupported(format!("{what} has no image for linux/{}", architecture()))),
    }
}

fn from_manifest(
    source: &dyn BlobSource,
    reference: Reference,
    descriptor: &Descriptor,
) -> Result<ResolvedImage> {
    let manifest_digest = digest_of(descriptor)?;
    let what = format!("manifest {manifest_digest}");
    let bytes = source.json(&manifest_digest, descriptor.size())?;
    let manifest = parse_manifest(&what, &bytes, descriptor)?;
    let config_digest = digest_of(manifest.config())?;
    let config: Configuration = parse(
        format_args!("configuration {config_digest}"),
        &source.json(&config_digest, manifest.config().size())?,
    )?;
    // A configuration without a platform is taken for one of this machine, as other tools do.
    let own_or =
        |named: &str, own: &'static str| if named.is_empty() { own.to_owned() } else { named.to_owned() };
    let (os, arch) = (own_or(&config.os, "linux"), own_or(&config.architecture, architecture()));
    if (os.as_str(), arch.as_str()) != ("linux", architecture()) {
        bail!(Unsupported, "{what} is for {os}/{arch}; this machine runs linux/{}", architecture());
    }
    let layers = layers(&what, &manifest, &config)?;
    // Sizes are untrusted, so their sum must not overflow.
    let sizes = [descriptor.size(), manifest.config().size()]
        .into_iter()
        .chain(layers.iter().map(|layer| layer.size));
    let bytes = sizes.fold(0, u64::saturating_add);
    let run = config.config.unwrap_or_default();
    let env = run.env().iter().flatten().filter_map(|variable| variable.split_once('='));
    Ok(ResolvedImage {
        reference,
        is_platform_assumed: config.os.is_empty() || config.architecture.is_empty(),
        manifest_digest,
        manifest_size: descriptor.size(),
        config_digest,
        config_size: manifest.config().size(),
        layers,
        speaks: run.labels().as_ref().and_then(|labels| labels.get(LABEL)).cloned(),
        entrypoint: run.entrypoint().clone().unwrap_or_default(),
        cmd: run.cmd().clone().unwrap_or_default(),
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        cwd: run.working_dir().clone().filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".to_owned()),
        user: run.user().clone(),
        bytes,
    })
}

fn parse_manifest(what: &str, bytes: &[u8], descriptor: &Descriptor) -> Result<ImageManifest> {
    refuse_keys(what, bytes, &["manifests", "fsLayers"])?;
    let manifest: ImageManifest = parse(what, bytes)?;
    if manifest.schema_version() != 2 {
        bail!(Unsupported, "{what} has schema version {}; supported: 2", manifest.schema_version());
    }
    if manifest.media_type().as_ref().is_some_and(|own| own != descriptor.media_type()) {
        bail!(Integrity, "{what} has another media type than its descriptor");
    }
    let config_type = manifest.config().media_type();
    if !is_config(config_type) {
        bail!(
            Unsupported,
            "{what} has a configuration of media type {config_type}, which is not that of an image"
        );
    }
    Ok(manifest)
}

fn layers(what: &str, manifest: &ImageManifest, config: &Configuration) -> Result<Vec<Layer>> {
    let diff_ids = config.rootfs.diff_ids();
    let count = manifest.layers().len();
    if diff_ids.len() != count {
        bail!(Integrity, "{what} has {count} layers, but its configuration names {}", diff_ids.len());
    }
    if count == 0 || count > MAX_LAYERS {
        bail!(Unsupported, "{what} has {count} layers; supported: 1 to {MAX_LAYERS}");
    }
    let layer = |(blob, diff_id): (&Descriptor, &String)| {
        let max_size = Limits::default().bytes;
        if blob.size() > max_size {
            bail!(
                Safety,
                "{what}: layer {} has {} bytes according to its descriptor; at most {max_size} are allowed",
                blob.digest(),
                blob.size()
            );
        }
        let diff_id = Digest::parse_in_document(diff_id)?;
        let layer = Layer::new(digest_of(blob)?, blob.size(), blob.media_type(), diff_id);
        layer.compression().map(|_| layer)
    };
    manifest.layers().iter().zip(diff_ids).map(layer).collect()
}
