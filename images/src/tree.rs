//! What an unpacked layer holds, and the proof that it still does.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use cap_std::fs::{Dir, PermissionsExt as _};
use serde::{Deserialize, Serialize};

use crate::digest::Hashing;
use crate::layout::{open, open_dir};
use crate::{Digest, Error, Result};

/// One thing in a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "lowercase")]
pub(crate) enum Node {
    Directory { mode: u32 },
    File { mode: u32, size: u64, sha256: Digest },
    Symlink { target: String },
}

/// Everything in a tree by its path; the root is the empty one.
pub(crate) type Index = BTreeMap<String, Node>;

/// Compares the tree in `root` with `index`: every name, kind, mode, size and link, and every byte.
pub(crate) fn verify(root: &Dir, index: &Index) -> Result<()> {
    let altered = |path: &str, what: &str| {
        Error::Integrity(format!("unpacked file /{path} {what}: the tree was altered or is damaged"))
    };
    let mut seen = BTreeMap::new();
    walk(root, "", &mut seen)?;
    for (path, found) in &seen {
        let Some(node) = index.get(path) else { return Err(altered(path, "is not of the image")) };
        let same = match (found, node) {
            (Found::Directory { mode }, Node::Directory { mode: expected }) => mode == expected,
            (Found::File { mode, size }, Node::File { mode: m, size: s, .. }) => (mode, size) == (m, s),
            (Found::Symlink { target }, Node::Symlink { target: expected }) => target == expected,
            _ => false,
        };
        if !same {
            return Err(altered(path, "has another kind, mode, size or target"));
        }
    }
    if let Some((path, _)) = index.iter().find(|(path, _)| !seen.contains_key(*path)) {
        return Err(altered(path, "is missing"));
    }
    let files: Vec<(&String, &Digest)> = index
        .iter()
        .filter_map(|(path, node)| match node {
            Node::File { sha256, .. } => Some((path, sha256)),
            _ => None,
        })
        .collect();
    in_parallel(&files, |(path, expected)| match hash(root, path)? == **expected {
        true => Ok(()),
        false => Err(altered(path, "holds other bytes")),
    })
}

/// Runs `check` on all of `items`, on all processors where there are many; the first error ends it.
fn in_parallel<T: Sync>(items: &[T], check: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    // Asking for the processors reads a handful of files, so only where it could matter.
    let workers = match items.len() / 8 {
        few @ 0..2 => few,
        many => std::thread::available_parallelism().map_or(1, usize::from).min(many),
    };
    if workers < 2 {
        return items.iter().try_for_each(check);
    }
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = check(item) {
                next.store(items.len(), Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|it| match it.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn hash(root: &Dir, path: &str) -> Result<Digest> {
    let doing = || format!("reading unpacked file /{path}");
    let mut names: Vec<&str> = path.split('/').collect();
    let name = names.pop().unwrap_or_default();
    let mut dir = None;
    for parent in names {
        dir = Some(open_dir(dir.as_ref().unwrap_or(root), parent).map_err(|error| error.within(doing()))?);
    }
    let file = open(dir.as_ref().unwrap_or(root), name).map_err(|error| error.within(doing()))?;
    let mut hashing = Hashing::new(());
    hashing.read_all(file).map_err(Error::io(doing()))?;
    Ok(hashing.finish().2)
}

enum Found {
    Directory { mode: u32 },
    File { mode: u32, size: u64 },
    Symlink { target: String },
}

/// Notes everything below `dir`, following nothing.
fn walk(dir: &Dir, path: &str, seen: &mut BTreeMap<String, Found>) -> Result<()> {
    let doing = |error: io::Error| Error::System(format!("looking at unpacked directory /{path}: {error}"));
    let mode = |it: &cap_std::fs::Metadata| it.permissions().mode() & 0o7777;
    seen.insert(path.to_owned(), Found::Directory { mode: mode(&dir.dir_metadata().map_err(doing)?) });
    for entry in dir.entries().map_err(doing)? {
        let entry = entry.map_err(doing)?;
        let Ok(name) = entry.file_name().into_string() else {
            return Err(Error::Integrity(format!(
                "unpacked directory /{path} holds a name that is not of the image"
            )));
        };
        let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        let metadata = entry.metadata().map_err(doing)?;
        if metadata.is_dir() {
            walk(&open_dir(dir, &name)?, &below, seen)?;
        } else if metadata.is_file() {
            seen.insert(below, Found::File { mode: mode(&metadata), size: metadata.len() });
        } else if metadata.is_symlink() {
            let target =
                rustix::fs::readlinkat(dir, &*name, Vec::new()).map_err(|error| doing(error.into()))?;
            let target = target.into_string().unwrap_or_default();
            seen.insert(below, Found::Symlink { target });
        } else {
            return Err(Error::Integrity(format!("unpacked file /{below} is a device, fifo or socket")));
        }
    }
    Ok(())
}
