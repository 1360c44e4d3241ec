//! `invarlock runtime image rm`.

use crate::error::Result;
use crate::{image, ui};
use invarlock_images::Reference;
use serde_json::json;

/// Removes a name, or with a digest all names of the image.
pub fn run(image: &str, json: bool) -> Result<u8> {
    let removed = image::store()?.remove(&Reference::parse(image)?)?;
    let value = json!({"format_version": "runtime-image-rm-v1", "removed": removed});
    let lines: Vec<String> = removed.iter().map(|name| format!("removed {}", ui::printable(name))).collect();
    ui::result(json, &value, &lines.join("\n"));
    Ok(0)
}
