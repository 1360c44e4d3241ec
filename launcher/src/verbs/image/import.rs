//! `invarlock runtime image import`.

use crate::error::Result;
use crate::{image, ui};
use invarlock_images::{Policy as SpecialFiles, Reference};
use serde_json::json;

/// Copies an image into the store and extracts its layers.
pub fn run(from: &str, name: Option<&str>, special_files: SpecialFiles, json: bool) -> Result<u8> {
    let store = image::store()?;
    let reference = Reference::parse(from)?;
    let step = image::copy_step("importing", &store, &reference)?;
    let imported = store.import(&reference, name, special_files, &|bytes| step.add(bytes))?;
    drop(step);
    let mut value = json!(imported);
    value["format_version"] = "runtime-image-import-v1".into();
    let text = match name {
        Some(name) => format!("{name} {}", imported.manifest_digest),
        None => imported.reference,
    };
    ui::result(json, &value, &text);
    Ok(0)
}
