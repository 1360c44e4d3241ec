//! `invarlock runtime image tag`.

use crate::error::Result;
use crate::{image, ui};
use invarlock_images::Reference;
use serde_json::json;

/// Adds a name to an image.
pub fn run(image: &str, name: &str, json: bool) -> Result<u8> {
    let digest = image::store()?.tag(&Reference::parse(image)?, name)?;
    let value =
        json!({"format_version": "runtime-image-tag-v1", "reference": name, "manifest_digest": digest});
    ui::result(json, &value, &format!("{name} {digest}"));
    Ok(0)
}
