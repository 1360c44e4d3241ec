//! `invarlock runtime image export`.

use crate::error::{Context as _, Result};
use crate::{image, ui};
use invarlock_images::{Digest, Reference};
use serde::Serialize;

/// The output of `runtime image export --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ExportOutput {
    /// Always `runtime-image-export-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-image-export-v1")))]
    format_version: &'static str,
    /// The destination.
    to: String,
    /// The digest of the manifest.
    manifest_digest: Digest,
}

/// Writes an image in a format that other tools read.
pub fn run(image: &str, to: &str, json: bool) -> Result<u8> {
    let store = image::store()?;
    let reference = Reference::parse(image)?;
    let destination = Reference::parse(to)
        .with_context(|| format!("reading the destination {to:?}"))
        .hint("name a file or directory with its format: oci-archive:FILE:TAG, docker-archive:FILE:NAME:TAG or oci:DIR:TAG")?;
    let step = image::copy_step("exporting", &store, &reference)?;
    let digest = store.export(&reference, &destination, &|bytes| step.add(bytes))?;
    drop(step);
    let output = ExportOutput {
        format_version: "runtime-image-export-v1",
        to: destination.to_string(),
        manifest_digest: digest,
    };
    ui::result(json, &output, &format!("{} {digest}", ui::printable(to)))?;
    Ok(0)
}
