//! `invarlock runtime image sbom`.

use crate::error::{Context as _, Kind, Result};
use crate::{image, ui};
use invarlock_error::Foreign as _;
use invarlock_images::Reference;
use serde_json::Value;

/// Prints the SBOM of an image.
pub fn run(image: &str) -> Result<u8> {
    let bytes = image::store()?.sbom(&Reference::parse(image)?)?;
    let sbom: Value = serde_json::from_slice(&bytes)
        .err_kind(Kind::Integrity)
        .with_context(|| format!("reading the SBOM of {image}"))?;
    ui::indented_json(&sbom)?;
    Ok(0)
}
