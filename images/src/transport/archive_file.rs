//! A tar archive with an image. Its headers are read once for the positions of its members, which are then read in place.

use invarlock_error::{Context as _, bail};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use crate::cas::Blob;
use crate::oci::Compression;
use crate::oci::compression::MAGIC_LENGTH;
use crate::oci::json::MAX_DOCUMENT;
use crate::tar::{Input, Kind, entries};
use crate::{Error, Result};

/// Most members of an archive. An image needs far fewer: it has at most 128 layers.
const MAX_MEMBERS: usize = 10_000;

/// A tar archive and the positions of its members.
#[derive(Debug)]
pub(super) struct ArchiveFile {
    file: File,
    /// Offset and size by name.
    members: BTreeMap<String, (u64, u64)>,
    /// The targets of links by name.
    links: BTreeMap<String, String>,
}

impl ArchiveFile {
    pub fn open(path: &Path) -> Result<Self> {
        // NONBLOCK: opening a fifo must not block.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, rustix::fs::Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {
                return Err(Error::input(format!("image archive {} not found", path.display()))
                    .with_hint("check the path; a relative path starts at the current directory"));
            }
            other => File::from(other.with_context(|| format!("opening image archive {}", path.display()))?),
        };
        let metadata =
            file.metadata().with_context(|| format!("reading the metadata of {}", path.display()))?;
        if !metadata.is_file() {
            bail!(Input, "image archive {} is not a regular file", path.display());
        }
        refuse_compressed(&file)
            .and_then(|()| Self::index(file, metadata.len()))
            .with_context(|| format!("image archive {}", path.display()))
    }

    fn index(file: File, length: u64) -> Result<Self> {
        let position = Cell::new(0);
        let (mut members, mut links) = (BTreeMap::new(), BTreeMap::new());
        entries(PositionedReader { file: &file, position: &position, length }, |item, _| {
            if members.len() + links.len() >= MAX_MEMBERS {
                return Err(Error::safety(format!("more than {MAX_MEMBERS} members")));
            }
            let is_unique = !members.contains_key(&item.path) && !links.contains_key(&item.path);
            let is_unique = match item.kind {
                Kind::Directory => true,
                Kind::File => {
                    members.insert(item.path.clone(), (position.get(), item.size)).is_none() && is_unique
                }
                Kind::Symlink(target) | Kind::Hardlink(target) => {
                    links.insert(item.path.clone(), target).is_none() && is_unique
                }
                other => return Err(Error::safety(format!("member {:?} is {other:?}", item.path))),
            };
            match is_unique {
                true => Ok(()),
                false => Err(Error::safety(format!("member {:?} occurs twice", item.path))),
            }
        })?;
        Ok(Self { file, members, links })
    }

    /// Whether the archive has members, and `is_expected` holds for none of their names.
    pub fn has_only_other_members(&self, is_expected: impl Fn(&str) -> bool) -> bool {
        let mut names = self.members.keys().chain(self.links.keys()).peekable();
        names.peek().is_some() && !names.any(|name| is_expected(name))
    }

    /// Opens a member. A link is followed once: Docker writes a duplicate layer as a link to the first one.
    pub fn open_member(&self, name: &str) -> Result<Blob> {
        let member = self.members.get(name).or_else(|| {
            let (parent, _) = name.rsplit_once('/').unwrap_or(("", name));
            self.members.get(&resolve_link(parent, self.links.get(name)?)?)
        });
        let (offset, size) = member.ok_or_else(|| Error::integrity(format!("{name} is missing")))?;
        let file = self.file.try_clone().context("reading an image archive")?;
        Ok(Blob::part(file, *offset, *size))
    }

    /// Reads a small member.
    pub fn read_document(&self, name: &str) -> Result<Vec<u8>> {
        let member = self.open_member(name)?;
        if member.len() > MAX_DOCUMENT {
            return Err(Error::safety(format!("{name} is longer than the {MAX_DOCUMENT} bytes allowed")));
        }
        let (size, mut bytes) = (member.len(), Vec::new());
        member.take(size).read_to_end(&mut bytes).with_context(|| format!("reading {name}"))?;
        Ok(bytes)
    }
}

/// The path of the link target `target` relative to the directory `parent`. `None` if it leaves the archive.
fn resolve_link(parent: &str, target: &str) -> Option<String> {
    let mut names: Vec<&str> = parent.split('/').filter(|name| !name.is_empty()).collect();
    for name in target.split('/') {
        match name {
            "." => {}
            "" => return None,
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

fn refuse_compressed(file: &File) -> Result<()> {
    let mut magic = [0; MAGIC_LENGTH];
    let read = file.read_at(&mut magic, 0).context("reading an image archive")?;
    let command = match Compression::from_magic(&magic[..read]) {
        Compression::Gzip => "gzip -d",
        Compression::Zstd => "zstd -d",
        Compression::None => match Compression::unsupported_decompressor(&magic[..read]) {
            Some(command) => command,
            None => return Ok(()),
        },
    };
    Err(Error::unsupported("the archive itself is compressed")
        .with_hint(format!("decompress it first with `{command}`")))
}

/// Reads a file from a shared position, so that content can be skipped without reading it.
struct PositionedReader<'a> {
    file: &'a File,
    position: &'a Cell<u64>,
    length: u64,
}

impl Read for PositionedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position.get())?;
        self.position.set(self.position.get() + read as u64);
        Ok(read)
    }
}

impl Input for PositionedReader<'_> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        match self.position.get().checked_add(count).filter(|end| *end <= self.length) {
            Some(end) => {
                self.position.set(end);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::resolve_link;

    #[test]
    fn link_targets_stay_inside_archive() {
        assert_eq!(resolve_link("a", "../b/layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(resolve_link("", "b").as_deref(), Some("b"));
        for outside in ["../../b", "/etc/passwd", "..//b", "../../../../etc/passwd"] {
            assert_eq!(resolve_link("a", outside), None, "{outside}");
        }
    }
}
