//! What a directory that is put on top of an image would hide without a word.

use std::os::fd::AsFd as _;

use cap_std::fs::Dir;
use rustix::fs::FileType;

use crate::cursor::directory;
use crate::tree::walk;
use crate::trees::Tree;
use crate::{Error, Result, attributes};

/// Refuses a layer with a directory where those below have a link to one, as `/bin` is in many images: overlays put the directory in the
/// place of the link, and what the link led to is gone. Where the layer takes the link away by name, that is meant.
pub(super) fn replaces_no_link(tree: &Tree, below: &[Tree]) -> Result<()> {
    let root = tree.open_root()?;
    let below = below.iter().rev().map(Tree::open_root).collect::<Result<Vec<Dir>>>()?;
    walk(root.as_fd(), "", 0, &mut |above, path, name, kind| {
        if kind != FileType::Directory {
            return Ok(());
        }
        // The topmost of them is what is seen.
        let seen = below.iter().find_map(|it| it.symlink_metadata(path).ok());
        if !seen.is_some_and(|it| it.is_symlink()) {
            return Ok(());
        }
        let own = directory(above, name)
            .map_err(|error| Error::system(format!("looking at unpacked file /{path}: {error}")))?;
        match attributes::is_opaque(&own) {
            true => Ok(()),
            false => Err(Error::input(format!(
                "/{path} is a link in the image below, and a directory would take its place; put what is in it where the link leads, or, \
                 if it is meant so, take the link away with an empty file /{path_of_removal}",
                path_of_removal = removal(path)
            ))),
        }
    })
}

/// The name that takes `path` away from the layers below.
fn removal(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((above, name)) => format!("{above}/.wh.{name}"),
        None => format!(".wh.{path}"),
    }
}
