//! A file that bundles many: an OCI layout in a tar archive. It is read once for where everything lies; blobs are then read in place.

use invarlock_error::Context as _;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use crate::archive::{Input, Kind, entries};
use crate::blobs::{Blob, Blobs, LONGEST_JSON};
use crate::layout::is_version_known;
use crate::packing::{MAGIC, Packing};
use crate::{Digest, Error, Result};

/// More members than this are no image of ours: it has at most 128 layers.
const MOST_MEMBERS: usize = 10_000;

/// Where the members of an archive lie in it.
#[derive(Debug)]
pub(crate) struct Bundle {
    file: File,
    /// Offset and size by name.
    members: BTreeMap<String, (u64, u64)>,
    /// What a link says, by its name.
    links: BTreeMap<String, String>,
}

impl Bundle {
    pub fn open(path: &Path) -> Result<Self> {
        let within = |error: Error| error.context(format_args!("image archive {}", path.display()));
        // NONBLOCK: a fifo must not stop us.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map(File::from);
        let file = file.map_err(|error| match error {
            rustix::io::Errno::NOENT => {
                Error::input(format!("image archive {} is not there", path.display()))
            }
            error => Error::system(format!("opening image archive {}: {error}", path.display())),
        })?;
        let metadata = file.metadata().context(format!("looking at {}", path.display()))?;
        if !metadata.is_file() {
            return Err(within(Error::input("it is no regular file")));
        }
        is_plain(&file).and_then(|()| Self::index(file, metadata.len())).map_err(within)
    }

    fn index(file: File, length: u64) -> Result<Self> {
        let at = Cell::new(0);
        let (mut members, mut links) = (BTreeMap::new(), BTreeMap::new());
        entries(InPlace { file: &file, at: &at, length }, |item, _| {
            if members.len() + links.len() >= MOST_MEMBERS {
                return Err(Error::safety(format!("more than {MOST_MEMBERS} members")));
            }
            let fresh = !members.contains_key(&item.path) && !links.contains_key(&item.path);
            let fresh = match item.kind {
                Kind::Directory => true,
                Kind::File => members.insert(item.path.clone(), (at.get(), item.size)).is_none() && fresh,
                Kind::Symlink(target) | Kind::Hardlink(target) => {
                    links.insert(item.path.clone(), target).is_none() && fresh
                }
                other => return Err(Error::safety(format!("member {:?} is {other:?}", item.path))),
            };
            match fresh {
                true => Ok(()),
                false => Err(Error::safety(format!("member {:?} is in the archive twice", item.path))),
            }
        })?;
        Ok(Self { file, members, links })
    }

    /// Opens a member. Docker writes a layer that comes twice as a link to the other; further than that no link is followed.
    pub fn member(&self, name: &str) -> Result<Blob> {
        let place = self.members.get(name).or_else(|| {
            let (parent, _) = name.rsplit_once('/').unwrap_or(("", name));
            self.members.get(&beside(parent, self.links.get(name)?)?)
        });
        let (at, size) = place.ok_or_else(|| Error::integrity(format!("{name} is missing")))?;
        let file = self.file.try_clone().context("reading an image archive")?;
        Ok(Blob::part(file, *at, *size))
    }

    /// A small member.
    pub fn text(&self, name: &str) -> Result<Vec<u8>> {
        let member = self.member(name)?;
        if member.len() > LONGEST_JSON {
            return Err(Error::safety(format!("{name} is longer than the {LONGEST_JSON} bytes allowed")));
        }
        let (size, mut bytes) = (member.len(), Vec::new());
        member.take(size).read_to_end(&mut bytes).context(format_args!("reading {name}"))?;
        Ok(bytes)
    }
}

/// The path that `target` leads to from the directory `parent`, where that stays inside.
fn beside(parent: &str, target: &str) -> Option<String> {
    let mut names: Vec<&str> = parent.split('/').filter(|name| !name.is_empty()).collect();
    for name in target.split('/') {
        match name {
            "." => {}
            "" => return None,
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join("/")) // join: of names of an archive, for a look into a table
}

fn is_plain(file: &File) -> Result<()> {
    let mut magic = [0; MAGIC];
    let read = file.read_at(&mut magic, 0).context("reading an image archive")?;
    let packed = match Packing::by_magic(&magic[..read]) {
        Packing::Gzip => "gzip -d",
        Packing::Zstd => "zstd -d",
        Packing::Plain => match Packing::foreign(&magic[..read]) {
            Some(packed) => packed,
            None => return Ok(()),
        },
    };
    Err(Error::unsupported(format!("it is compressed as a whole; unpack it first with `{packed}`")))
}

/// A file that is read where `at` says, so that what nobody needs is passed over.
struct InPlace<'a> {
    file: &'a File,
    at: &'a Cell<u64>,
    length: u64,
}

impl Read for InPlace<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at.get())?;
        self.at.set(self.at.get() + read as u64);
        Ok(read)
    }
}

impl Input for InPlace<'_> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        match self.at.get().checked_add(count).filter(|end| *end <= self.length) {
            Some(end) => {
                self.at.set(end);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// An OCI layout in an archive.
#[derive(Debug)]
pub(crate) struct OciArchive(Bundle);

impl OciArchive {
    pub fn open(path: &Path) -> Result<Self> {
        let bundle = Bundle::open(path)?;
        bundle
            .text("oci-layout")
            .and_then(|text| is_version_known(&text))
            .map_err(|error| error.context(format_args!("image archive {}", path.display())))?;
        Ok(Self(bundle))
    }
}

impl Blobs for OciArchive {
    fn index_bytes(&self) -> Result<Vec<u8>> {
        self.0.text("index.json")
    }

    fn open(&self, digest: &Digest) -> Result<Blob> {
        self.0.member(&format!("blobs/sha256/{}", digest.hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::beside;

    #[test]
    fn links_stay_inside() {
        assert_eq!(beside("a", "../b/layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(beside("", "b").as_deref(), Some("b"));
        for outside in ["../../b", "/etc/passwd", "..//b", "../../../../etc/passwd"] {
            assert_eq!(beside("a", outside), None, "{outside}");
        }
    }
}
