//! Checks that a directory on top of an image hides nothing without an explicit whiteout.

use std::os::fd::AsFd as _;

use cap_std::fs::Dir;
use rustix::fs::FileType;

use crate::layer::cursor::directory;
use crate::layer::inspect::{inspect_error, walk};
use crate::layer::xattr;
use crate::rootfs::ExtractedLayer;
use crate::{Error, Result};

/// Refuses a layer with a directory where a lower layer has a link, as `/bin` in many images: an overlay replaces the link, and the target
/// of the link is hidden. A whiteout of the link in the same layer makes this explicit.
pub(super) fn replaces_no_link(layer: &ExtractedLayer, lower: &[ExtractedLayer]) -> Result<()> {
    let root = layer.open_root()?;
    let lower = lower.iter().rev().map(ExtractedLayer::open_root).collect::<Result<Vec<Dir>>>()?;
    walk(root.as_fd(), "", 0, &mut |parent, path, name, file_type| {
        if file_type != FileType::Directory {
            return Ok(());
        }
        // The entry of the topmost layer is the visible one.
        let visible = lower.iter().find_map(|root| root.symlink_metadata(path).ok());
        if !visible.is_some_and(|entry| entry.is_symlink()) {
            return Ok(());
        }
        let own = directory(parent, name).map_err(inspect_error(path))?;
        match xattr::is_opaque(&own) {
            true => Ok(()),
            false => Err(Error::input(format!("/{path} is a link in a lower layer, and a directory would replace it"))
                .with_hint(format!(
                    "move the contents of the directory to the target of the link, or remove the link explicitly with an empty file /{}",
                    whiteout(path)
                ))),
        }
    })
}

/// The path of the whiteout of `path`.
fn whiteout(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((parent, name)) => format!("{parent}/.wh.{name}"),
        None => format!(".wh.{path}"),
    }
}
