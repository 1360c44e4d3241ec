//! `invarlock runtime image gc`.

use crate::error::Result;
use crate::{image, ui};
use invarlock_images::Freed;
use serde::Serialize;

/// The output of `runtime image gc --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct GcOutput<'a> {
    /// What was deleted.
    #[serde(flatten)]
    freed: &'a Freed,
    /// Always `runtime-image-gc-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-image-gc-v1")))]
    format_version: &'static str,
    /// Whether nothing was deleted: it only would have been.
    dry_run: bool,
}

/// Deletes everything that no image needs.
pub fn run(dry_run: bool, json: bool) -> Result<u8> {
    let freed = image::store()?.gc(dry_run)?;
    let output = GcOutput { freed: &freed, format_version: "runtime-image-gc-v1", dry_run };
    ui::result(json, &output, &text(&freed, dry_run))?;
    Ok(0)
}

fn text(freed: &Freed, dry_run: bool) -> String {
    let verb = if dry_run { "would free" } else { "freed" };
    let (size, blobs, layers) = (ui::size(freed.bytes), freed.blobs.len(), freed.trees.len());
    let kept = match freed.in_use.len() {
        0 => String::new(),
        count => format!("; kept {count} extracted layers that are in use"),
    };
    format!("{verb} {size}: {blobs} blobs and {layers} extracted layers{kept}")
}
