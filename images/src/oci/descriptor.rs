//! Descriptors: media type, digest and size of a blob, and the annotations that an index adds.

use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Value, json};

use super::Digest;
use crate::{Error, Result};

/// Annotation in the index of a layout: the tag of an image.
pub(crate) use oci_spec::image::ANNOTATION_REF_NAME as TAG;

/// Annotation in the index of a store: the digest of the registry's index from which an image was chosen.
pub(crate) const CHOSEN_FROM: &str = "org.invarlock.chosen-from";

/// Annotation in the index of a layout of containerd or BuildKit: the full name of an image.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// This machine's architecture, as images name it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The platform of images that run on this machine.
pub(crate) fn platform() -> Value {
    json!({ "architecture": architecture(), "os": "linux" })
}

/// A descriptor as JSON.
pub(crate) fn descriptor(media_type: &MediaType, digest: &Digest, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

/// A descriptor, with the platform of this machine, as JSON.
pub(crate) fn platform_descriptor(media_type: &MediaType, digest: &Digest, size: u64) -> Value {
    let mut descriptor = descriptor(media_type, digest, size);
    descriptor["platform"] = platform();
    descriptor
}

/// The descriptor as JSON, without annotations: those belong to the index it came from.
pub(crate) fn without_annotations(descriptor: &Descriptor) -> Result<Value> {
    let mut value = serde_json::to_value(descriptor)
        .map_err(|error| Error::system(format!("writing a descriptor: {error}")).with_source(error))?;
    if let Some(members) = value.as_object_mut() {
        members.retain(|key, _| ["mediaType", "digest", "size", "platform"].contains(&key.as_str()));
    }
    Ok(value)
}

/// The digest of a descriptor.
pub(crate) fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    Digest::parse_in_document(descriptor.digest().as_ref())
}

/// The value of an annotation.
pub(crate) fn annotation<'a>(descriptor: &'a Descriptor, name: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(name).map(String::as_str)
}

/// The digest of the index from which an image was chosen.
pub(crate) fn chosen_from(descriptor: &Descriptor) -> Option<Digest> {
    Digest::parse(annotation(descriptor, CHOSEN_FROM)?).ok()
}

/// Whether a descriptor in an index is that of an artifact attached to an image, and not of an image.
pub(crate) fn is_artifact(descriptor: &Descriptor) -> bool {
    descriptor.artifact_type().is_some()
}

/// Whether a descriptor of an index, as JSON, has no tag.
pub(crate) fn is_untagged(descriptor: &Value) -> bool {
    descriptor["annotations"][TAG].is_null()
}
