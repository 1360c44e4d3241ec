//! `invarlock runtime image inspect`.

use crate::error::Result;
use crate::{image, ui};
use invarlock_images::Reference;

/// Prints digests, configuration and layers of an image.
pub fn run(image: &str, json: bool) -> Result<u8> {
    let value = image::store()?.inspect(&Reference::parse(image)?)?;
    match json {
        true => ui::json(&value),
        false => ui::out(&ui::ascii(&format!("{value:#}"))),
    }
    Ok(0)
}
