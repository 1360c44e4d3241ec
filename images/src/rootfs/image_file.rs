//! Reading a small text file of an image, as a container sees it, without mounting the layers.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use invarlock_error::Context as _;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::image::VerifiedRootfs;
use crate::Result;
use crate::layer::inspect::{file_type, is_whiteout};
use crate::layer::xattr;

/// Most bytes of a file.
const MAX_LENGTH: u64 = 1 << 20;

/// A small text file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageFile {
    /// There is no file of that name.
    Absent,
    /// Its content.
    Text(String),
    /// It is not a plain text file: a link, a file below a link, or not UTF-8.
    Other,
    /// It is longer than 1 MiB.
    TooLong,
}

impl ImageFile {
    /// The content, if it is text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::Other | Self::TooLong => None,
        }
    }
}

impl VerifiedRootfs {
    /// Reads the file `path` in a directory of the root, such as `etc/passwd`.
    pub fn read(&self, path: &str) -> Result<ImageFile> {
        for layer in self.layers.iter().rev() {
            let found = read_in(layer, path).with_context(|| format!("reading /{path} of the image"))?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(ImageFile::Absent)
    }
}

/// The file in one layer; `None` if a lower layer can have it.
fn read_in(layer: &Path, path: &str) -> Result<Option<ImageFile>> {
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    let root = openat(CWD, layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // The parent is one name below the root, so that no link is followed.
    debug_assert!(!parent.contains('/'), "{path} is not in a directory of the root");
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(&root, parent, flags, Mode::empty()) {
        Ok(handle) => handle,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&directory)?;
    match file_type(&stat) {
        FileType::Directory => {}
        _ if is_whiteout(&stat) => return Ok(Some(ImageFile::Absent)),
        // A link, or something that is no directory, hides what lower layers have.
        _ => return Ok(Some(ImageFile::Other)),
    }
    // The handle of an `O_PATH` directory has no extended attributes.
    let directory =
        openat(&directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found =
        match openat(&directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) if xattr::is_opaque(&directory) => return Ok(Some(ImageFile::Absent)),
            Err(Errno::NOENT) => return Ok(None),
            other => fstat(other?)?,
        };
    match file_type(&found) {
        FileType::RegularFile => {}
        _ if is_whiteout(&found) => return Ok(Some(ImageFile::Absent)),
        _ => return Ok(Some(ImageFile::Other)),
    }
    let mut bytes = Vec::new();
    let file = File::from(openat(&directory, name, flags, Mode::empty())?);
    file.take(MAX_LENGTH + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LENGTH {
        return Ok(Some(ImageFile::TooLong));
    }
    Ok(Some(String::from_utf8(bytes).map_or(ImageFile::Other, ImageFile::Text)))
}
