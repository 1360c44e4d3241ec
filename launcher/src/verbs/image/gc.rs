//! `invarlock runtime image gc`.

use crate::error::Result;
use crate::{image, ui};
use invarlock_images::Freed;
use serde_json::json;

/// Deletes everything that no image needs.
pub fn run(dry_run: bool, json: bool) -> Result<u8> {
    let freed = image::store()?.gc(dry_run)?;
    let mut value = json!(freed);
    value["format_version"] = "runtime-image-gc-v1".into();
    value["dry_run"] = dry_run.into();
    ui::result(json, &value, &text(&freed, dry_run));
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
