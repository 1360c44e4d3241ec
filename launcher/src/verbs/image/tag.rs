//! `invarlock runtime image tag`.

use crate::error::Result;
use crate::{image, ui};
use invarlock_images::{Digest, Reference};
use serde::Serialize;

/// The output of `runtime image tag --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct TagOutput<'a> {
    /// Always `runtime-image-tag-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-image-tag-v1")))]
    format_version: &'static str,
    /// The new name.
    reference: &'a str,
    /// The digest of the manifest.
    manifest_digest: Digest,
}

/// Adds a name to an image.
pub fn run(image: &str, name: &str, json: bool) -> Result<u8> {
    let digest = image::store()?.tag(&Reference::parse(image)?, name)?;
    let output =
        TagOutput { format_version: "runtime-image-tag-v1", reference: name, manifest_digest: digest };
    ui::result(json, &output, &format!("{name} {digest}"))?;
    Ok(0)
}
