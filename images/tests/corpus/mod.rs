//! Archives and layouts that attack, each with its class. `archives` has one hostile layer each, `layouts` whole hostile images,
//! `bundles` images in hostile archives.

mod archives;
mod bundles;
mod layouts;

use invarlock_error::Kind;
use std::path::Path;

use invarlock_images::{Error, Reference};

use crate::common::*;

/// The kind of error that an attack must end in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    Safety,
    Integrity,
    Unsupported,
    /// What only a user can decide.
    Input,
}

pub fn kind(error: &Error) -> Option<As> {
    match error.kind() {
        Kind::Safety => Some(As::Safety),
        Kind::Integrity => Some(As::Integrity),
        Kind::Unsupported => Some(As::Unsupported),
        Kind::Input => Some(As::Input),
        _ => None,
    }
}

/// Puts an image into an empty directory and says how it is named.
type Make = Box<dyn Fn(&Path) -> Reference>;

/// One attack.
pub struct Attack {
    pub class: &'static str,
    pub name: String,
    pub expected: As,
    pub make: Make,
}

/// All that must be refused.
pub fn attacks() -> Vec<Attack> {
    let mut all = archives::attacks();
    all.extend(layouts::attacks());
    all.extend(bundles::attacks());
    all
}

/// Images that look like an attack, and do no harm: they are accepted, and all they make stays inside.
pub fn harmless() -> Vec<(&'static str, Make)> {
    layouts::harmless()
}

fn layer_of(kind: &'static str, blob: Vec<u8>, archive: Vec<u8>) -> Make {
    Box::new(move |dir| {
        let layout = TestLayout::new(&dir.join("layout"));
        layout.index(&[layout.image(&[(kind, blob.clone(), archive.clone())])]);
        layout.reference()
    })
}

fn plain(class: &'static str, name: &str, archive: Vec<u8>, expected: As) -> Attack {
    Attack { class, name: name.to_owned(), expected, make: layer_of(TAR, archive.clone(), archive) }
}

fn packed(
    class: &'static str,
    name: &str,
    kind: &'static str,
    blob: Vec<u8>,
    archive: Vec<u8>,
    expected: As,
) -> Attack {
    Attack { class, name: name.to_owned(), expected, make: layer_of(kind, blob, archive) }
}
