//! Media types of OCI images and their Docker equivalents.

use oci_spec::image::{MediaType, ToDockerV2S2 as _};

/// Whether `found` is `expected` or Docker's name for it.
pub(crate) fn is_equivalent(found: &MediaType, expected: &MediaType) -> bool {
    found == expected || expected.to_docker_v2s2().is_ok_and(|docker| found.as_ref() == docker)
}

/// Whether it is the media type of an image manifest.
pub(crate) fn is_manifest(media_type: &MediaType) -> bool {
    is_equivalent(media_type, &MediaType::ImageManifest)
}

/// Whether it is the media type of an image index.
pub(crate) fn is_index(media_type: &MediaType) -> bool {
    is_equivalent(media_type, &MediaType::ImageIndex)
}

/// Whether it is the media type of an image configuration.
pub(crate) fn is_config(media_type: &MediaType) -> bool {
    is_equivalent(media_type, &MediaType::ImageConfig)
}
