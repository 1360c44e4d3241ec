//! `invarlock runtime image inspect`.

use crate::error::Result;
use crate::{image, ui};
use invarlock_images::Reference;

/// Prints digests, configuration and layers of an image.
pub fn run(image: &str) -> Result<u8> {
    let value = image::store()?.inspect(&Reference::parse(image)?)?;
    ui::out(&ui::ascii(&format!("{value:#}")));
    Ok(0)
}
