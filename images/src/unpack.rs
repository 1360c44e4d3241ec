//! From a layer's blob to a tree, trusting neither.
//!
//! What is in the tree is known from [`Index`], which is built along the way: a parent must be a directory that this very archive made, so no
//! symbolic link is ever on the way of anything. Besides, everything happens below one directory handle.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::time::{Duration, SystemTime};

use cap_std::fs::{
    Dir, DirBuilder, DirBuilderExt as _, OpenOptions, OpenOptionsExt as _, PermissionsExt as _,
};
use rustix::fs::{Mode, fchmod};

use crate::archive::{self, Item, Kind, damaged};
use crate::digest::Hashing;
use crate::resolve::{Layer, Packing};
use crate::tree::{Index, Node};
use crate::{Error, Result};

/// How much one layer may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes of the archive.
    pub bytes: u64,
    /// Entries, and directories made on the way.
    pub entries: usize,
    /// Bytes of the archive for each of the blob, above [`Bounds::always`].
    pub ratio: u64,
    /// Bytes of the archive that are fine whatever the blob's size.
    pub always: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 1_000_000, ratio: 200, always: 64 << 20 }
    }
}

/// Unpacks `blob` into the empty directory `root`. An error leaves what is there; the caller throws it away.
pub(crate) fn unpack(blob: File, layer: &Layer, root: &Dir, bounds: Bounds) -> Result<Index> {
    let most = bounds.bytes.min(bounds.always.max(layer.size.saturating_mul(bounds.ratio)));
    let mut blob = BufReader::with_capacity(1 << 17, Hashing::bounded(blob, layer.size));
    let mut tree = Tree { root, index: Index::new(), bounds };
    tree.index.insert(String::new(), Node::Directory { mode: 0o755 });
    let filled = match layer.packing()? {
        Packing::Plain => tree.fill(&mut blob, most),
        Packing::Gzip => tree.fill(flate2::bufread::MultiGzDecoder::new(&mut blob), most),
    };
    // Also after an error: bytes that are not the image's explain every other complaint about them.
    io::copy(&mut blob, &mut io::sink()).map_err(damaged)?;
    layer.is_blob(blob.into_inner())?;
    let diff_id = filled?;
    if diff_id != layer.diff_id {
        return Err(Error::Integrity(format!(
            "layer {} unpacks to {diff_id}, but the configuration says {}",
            layer.digest, layer.diff_id
        )));
    }
    tree.finish_directories()?;
    Ok(tree.index)
}

struct Tree<'a> {
    root: &'a Dir,
    index: Index,
    bounds: Bounds,
}

impl Tree<'_> {
    fn fill(&mut self, reader: impl Read, most: u64) -> Result<crate::Digest> {
        let mut hashing = Hashing::bounded(reader, most);
        archive::entries(&mut hashing, |item, content| {
            let path = item.path.clone();
            self.add(item, content).map_err(|error| error.within(format_args!("entry {path:?}")))
        })?;
        Ok(hashing.finish().2)
    }

    fn add(&mut self, item: Item, content: &mut dyn Read) -> Result<()> {
        let Item { path, kind, mode, size, mtime } = item;
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.make_parents(parent)?;
        }
        self.make_room()?;
        let node = match kind {
            Kind::Directory => return self.directory(path, mode & 0o755 | 0o700),
            _ if self.index.contains_key(&path) => return Err(twice()),
            // Set-id bits go, and the owner can read, or he could not verify.
            Kind::File => self.file(&path, mode & 0o755 | 0o400, size, mtime, content)?,
            Kind::Symlink(target) => {
                self.root.symlink_contents(&target, &path).map_err(made("a link"))?;
                Node::Symlink { target }
            }
            Kind::Hardlink(target) => match self.index.get(&target) {
                Some(node @ Node::File { .. }) => {
                    self.root.hard_link(&target, self.root, &path).map_err(made("a hard link"))?;
                    node.clone()
                }
                _ => {
                    return Err(Error::Safety(format!(
                        "a hard link to {target:?}, which is no file of this layer before it"
                    )));
                }
            },
        };
        self.index.insert(path, node);
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        match self.index.len() < self.bounds.entries {
            true => Ok(()),
            false => Err(Error::Safety(format!("more than the {} entries allowed", self.bounds.entries))),
        }
    }

    /// Archives may leave directories out.
    fn make_parents(&mut self, parent: &str) -> Result<()> {
        let ends = parent.match_indices('/').map(|(at, _)| at).chain([parent.len()]);
        for path in ends.map(|end| &parent[..end]) {
            match self.index.get(path) {
                Some(Node::Directory { .. }) => {}
                Some(_) => {
                    return Err(Error::Safety(format!("it lies below {path:?}, which is not a directory")));
                }
                None => {
                    self.make_room()?;
                    self.make_directory(path)?;
                    self.index.insert(path.to_owned(), Node::Directory { mode: 0o755 });
                }
            }
        }
        Ok(())
    }

    fn make_directory(&self, path: &str) -> Result<()> {
        self.root.create_dir_with(path, DirBuilder::new().mode(0o700)).map_err(made("a directory"))
    }

    /// A directory may come after what lies in it; that is the only thing that may come again.
    fn directory(&mut self, path: String, mode: u32) -> Result<()> {
        match self.index.get(&path) {
            Some(Node::Directory { .. }) => {}
            Some(_) => return Err(twice()),
            None => self.make_directory(&path)?,
        }
        self.index.insert(path, Node::Directory { mode });
        Ok(())
    }

    fn file(&self, path: &str, mode: u32, size: u64, mtime: u64, content: &mut dyn Read) -> Result<Node> {
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
        let file = self.root.open_with(path, &options).map_err(made("a file"))?.into_std();
        let mut hashing = Hashing::new(&file);
        let copied = io::copy(content, &mut hashing).map_err(damaged)?;
        let (_, _, sha256) = hashing.finish();
        if copied != size {
            return Err(Error::Integrity("the archive ends inside a file".to_owned()));
        }
        fchmod(&file, Mode::from_raw_mode(mode)).map_err(|error| made("a file")(error.into()))?;
        // Times are not content, but Python compares them. One the file system cannot hold is left as it is.
        if let Some(time) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(mtime)) {
            let _ = file.set_modified(time);
        }
        Ok(Node::File { mode, size, sha256 })
    }

    /// Modes of directories come last, so that a read-only one can be filled.
    fn finish_directories(&self) -> Result<()> {
        for (path, node) in self.index.iter().rev() {
            let Node::Directory { mode } = node else { continue };
            let path = if path.is_empty() { "." } else { path };
            let permissions = cap_std::fs::Permissions::from_mode(*mode);
            self.root.set_permissions(path, permissions).map_err(made("a directory"))?;
        }
        Ok(())
    }
}

fn twice() -> Error {
    Error::Safety("it is in the archive twice".to_owned())
}

fn made(what: &str) -> impl FnOnce(io::Error) -> Error {
    Error::io(format!("making {what}"))
}
