//! `invarlock runtime image inspect`.

use crate::error::Result;
use crate::{image, ui};
use invarlock_images::{Described, Reference};
use serde::Serialize;

/// The output of `runtime image inspect`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct InspectOutput {
    /// Always `runtime-image-inspect-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-image-inspect-v1")))]
    format_version: &'static str,
    /// The image.
    #[serde(flatten)]
    described: Described,
}

/// Prints digests, configuration and layers of an image.
pub fn run(image: &str, json: bool) -> Result<u8> {
    let described = image::store()?.inspect(&Reference::parse(image)?)?;
    let output = InspectOutput { format_version: "runtime-image-inspect-v1", described };
    match json {
        true => ui::json(&output)?,
        false => ui::indented_json(&output)?,
    }
    Ok(0)
}
