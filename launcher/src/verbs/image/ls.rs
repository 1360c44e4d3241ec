//! `invarlock runtime image ls`.

use crate::error::Result;
use crate::{image, ui};
use serde_json::json;

/// Lists the images of the store.
pub fn run(json: bool) -> Result<u8> {
    let images = image::store()?.list()?;
    if json {
        ui::json(&json!({"format_version": "runtime-image-ls-v1", "images": images}));
        return Ok(0);
    }
    ui::out(&format!("{:<32} {:<71} SIZE", "REFERENCE", "DIGEST"));
    for image in images {
        let (reference, size) = (ui::printable(&image.reference), ui::size(image.bytes));
        ui::out(&format!("{reference:<32} {:<71} {size}", image.manifest_digest));
    }
    Ok(0)
}
