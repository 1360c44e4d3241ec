//! A corpus of hostile images, each with a class: `layers` has hostile layers, `layouts` hostile documents and layouts, and `image_archives`
//! hostile OCI and Docker archives.

mod image_archives;
mod layers;
mod layouts;

use invarlock_error::Kind;
use std::path::Path;

use invarlock_images::{Error, Reference};

use crate::common::*;

/// The kind of error that an attack must cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Safety,
    Integrity,
    Unsupported,
    /// The user must choose.
    Input,
}

pub fn kind(error: &Error) -> Option<Expected> {
    match error.kind() {
        Kind::Safety => Some(Expected::Safety),
        Kind::Integrity => Some(Expected::Integrity),
        Kind::Unsupported => Some(Expected::Unsupported),
        Kind::Input => Some(Expected::Input),
        _ => None,
    }
}

/// Creates an image in an empty directory and returns its reference.
type Create = Box<dyn Fn(&Path) -> Reference>;

/// One attack.
pub struct Attack {
    pub class: &'static str,
    pub name: String,
    pub expected: Expected,
    pub create: Create,
}

/// All images that must be rejected.
pub fn attacks() -> Vec<Attack> {
    let mut all = layers::attacks();
    all.extend(layouts::attacks());
    all.extend(image_archives::attacks());
    all
}

/// Images that look like an attack but are harmless: they are accepted, and extraction writes only inside the store.
pub fn harmless() -> Vec<(&'static str, Create)> {
    layouts::harmless()
}

fn layer_of(media_type: &'static str, blob: Vec<u8>, archive: Vec<u8>) -> Create {
    Box::new(move |dir| {
        let layout = TestLayout::new(&dir.join("layout"));
        layout.index(&[layout.image(&[(media_type, blob.clone(), archive.clone())])]);
        layout.reference()
    })
}

fn uncompressed_layer(class: &'static str, name: &str, archive: Vec<u8>, expected: Expected) -> Attack {
    Attack { class, name: name.to_owned(), expected, create: layer_of(TAR, archive.clone(), archive) }
}

fn compressed_layer(
    class: &'static str,
    name: &str,
    media_type: &'static str,
    blob: Vec<u8>,
    archive: Vec<u8>,
    expected: Expected,
) -> Attack {
    Attack { class, name: name.to_owned(), expected, create: layer_of(media_type, blob, archive) }
}
