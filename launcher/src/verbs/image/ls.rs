//! `invarlock runtime image ls`.

use crate::error::Result;
use crate::{image, ui};
use invarlock_images::ListedImage;
use serde::Serialize;

/// The output of `runtime image ls --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct LsOutput<'a> {
    /// Always `runtime-image-ls-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-image-ls-v1")))]
    format_version: &'static str,
    /// The images, sorted by reference.
    images: &'a [ListedImage],
}

/// Lists the images of the store.
pub fn run(json: bool) -> Result<u8> {
    let images = image::store()?.list()?;
    if json {
        ui::json(&LsOutput { format_version: "runtime-image-ls-v1", images: &images })?;
        return Ok(0);
    }
    ui::out(&format!("{:<32} {:<71} SIZE", "REFERENCE", "DIGEST"));
    for image in images {
        let (reference, size) = (ui::printable(&image.reference), ui::size(image.bytes));
        ui::out(&format!("{reference:<32} {:<71} {size}", image.manifest_digest));
    }
    Ok(0)
}
