//! `invarlock runtime image rm`.

use crate::error::Result;
use crate::{image, ui};
use invarlock_images::Reference;
use serde::Serialize;

/// The output of `runtime image rm --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct RmOutput<'a> {
    /// Always `runtime-image-rm-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-image-rm-v1")))]
    format_version: &'static str,
    /// The removed names; the digest of an image without one.
    removed: &'a [String],
}

/// Removes a name, or with a digest all names of the image.
pub fn run(image: &str, json: bool) -> Result<u8> {
    let removed = image::store()?.remove(&Reference::parse(image)?)?;
    let output = RmOutput { format_version: "runtime-image-rm-v1", removed: &removed };
    let lines: Vec<String> = removed.iter().map(|name| format!("removed {}", ui::printable(name))).collect();
    ui::result(json, &output, &lines.join("\n"))?;
    Ok(0)
}
