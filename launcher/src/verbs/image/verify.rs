//! `invarlock runtime image verify`.

use crate::error::{Context as _, Error, Kind, Result};
use crate::{image, ui};
use invarlock_images::{Checked, Reference};
use serde::Serialize;

/// The output of `runtime image verify --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct VerifyImageOutput<'a> {
    /// Always `runtime-image-verify-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-image-verify-v1")))]
    format_version: &'static str,
    /// Whether no object is corrupt.
    ok: bool,
    /// Every object that was verified.
    checked: &'a [Checked],
}

/// Verifies every byte of an image, or of the whole store. Exits 3 when something is corrupt.
pub fn run(image: Option<&str>, repair: bool, json: bool) -> Result<u8> {
    let reference = image.map(Reference::parse).transpose()?;
    let checked = image::store()?.verify(reference.as_ref(), repair)?;
    let corrupt = checked.iter().filter(|object| object.problem.is_some()).count();
    let output =
        VerifyImageOutput { format_version: "runtime-image-verify-v1", ok: corrupt == 0, checked: &checked };
    ui::result(json, &output, &checked.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    match corrupt {
        0 => Ok(0),
        // The JSON object lists the corrupt objects already.
        _ if json => Ok(Kind::Integrity.exit_code()),
        _ => Err(Error::integrity(format!(
            "verifying the image store: {corrupt} of {} objects are corrupt",
            checked.len()
        )))
        .hint(hint(&checked, repair)),
    }
}

/// What to do about the corrupt objects. A layer that is still corrupt after a repair has a corrupt blob.
fn hint(checked: &[Checked], repair: bool) -> String {
    let is_layer = |object: &&Checked| object.kind == "tree" && !repair;
    let (layers, others): (Vec<_>, Vec<_>) =
        checked.iter().filter(|object| object.problem.is_some()).partition(is_layer);
    let mut hints = Vec::new();
    if !layers.is_empty() {
        hints.push(
            "for altered layers, run `invarlock runtime image verify --repair`: it extracts them again, and removes those that no \
             image of the store uses",
        );
    }
    if !others.is_empty() {
        hints.push(
            "for a corrupt image or blob, remove every image that uses it (`invarlock runtime image rm`, then `gc`) and import or pull them again",
        );
    }
    hints.join("; ")
}

fn line(object: &Checked) -> String {
    let state = match &object.problem {
        Some(problem) => ui::printable(problem),
        None if object.repaired => "was altered; extracted again".to_owned(),
        None if object.removed => {
            "was altered; removed, because no intact image of the store uses it".to_owned()
        }
        None => "ok".to_owned(),
    };
    // In JSON the kind of an extracted layer is `tree`.
    let kind = if object.kind == "tree" { "layer" } else { object.kind };
    format!("{kind:<5} {} {state}", ui::printable(&object.name))
}
