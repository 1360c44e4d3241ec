//! A strict reader and a writer of tar archives.
//!
//! Archives are untrusted. The reader refuses everything that two readers could interpret differently. It is written here because the
//! combined meaning of headers is where archive readers have had vulnerabilities (CVE-2025-62518, CVE-2026-33055), and because the `tar`
//! crate parses numbers more freely than other readers and hides the extra headers of sparse files. Tests compare the result with GNU tar
//! and with Python's `tarfile`.

mod attribute_names;
mod extension;
mod header;
mod path;
mod sparse;
mod writer;

use std::io::{self, Read};

use extension::{Extensions, is_extension};
use header::{BLOCK, Header};
use path::WhiteoutMark;

use crate::oci::Hashing;
use crate::oci::compression::WindowTooLarge;
use crate::oci::digest::LimitExceeded;
use crate::{Error, Result};

pub(crate) use attribute_names::{Attributes, KEPT_PREFIX, is_kept};
pub(crate) use path::MAX_DEPTH;
pub(crate) use sparse::Extent;
pub(crate) use writer::Entry;

/// The type of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
    /// A file of which only some extents are stored.
    Sparse(Vec<Extent>),
    Symlink(String),
    /// A link to an earlier file of the archive, by its path.
    Hardlink(String),
    /// Removes the entry of this path from lower layers.
    Whiteout,
    /// Removes everything that lower layers have in this directory.
    Opaque,
    /// A device or a fifo.
    Special(&'static str),
}

/// An entry whose path and hard link target stay below the root.
#[derive(Debug)]
pub(crate) struct Item {
    /// Names joined by `/`; empty for the root.
    pub path: String,
    pub kind: Kind,
    pub mode: u32,
    /// Bytes of the file, holes included.
    pub size: u64,
    pub mtime: u64,
    /// Extended attributes that are kept.
    pub attributes: Attributes,
    /// Number of extended attributes that are not kept.
    pub dropped: u32,
}

/// A source of an archive that can skip content.
pub(crate) trait Input: Read {
    /// Skips exactly `count` bytes.
    fn skip(&mut self, count: u64) -> io::Result<()>
    where
        Self: Sized,
    {
        let skipped = io::copy(&mut self.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl<I: Input> Input for &mut I {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        (**self).skip(count)
    }
}

impl<T: Read> Input for Hashing<T> {}

/// Calls `each` for every entry, with a reader of exactly the stored content of the entry.
pub(crate) fn entries<I: Input>(
    mut input: I,
    mut each: impl FnMut(Item, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut extra = Extensions::default();
    let mut first = true;
    while let Some(header) = next_header(&mut input, std::mem::take(&mut first))? {
        let named =
            |error: Error| error.context(format_args!("entry {:?}", String::from_utf8_lossy(&header.path())));
        if is_extension(&header) {
            let stored = header.size()?;
            let mut content = input.by_ref().take(stored);
            extra.add(&header, &mut content)?;
            skip_rest(&mut input, 0, stored)?;
            continue;
        }
        let stored = extra.size(&header).map_err(named)?;
        let old_map = match header.kind() {
            b'S' => Some(sparse::read_old_map(&header, stored, &mut input).map_err(named)?),
            _ => None,
        };
        let mut content = input.by_ref().take(stored);
        let item = item(&header, std::mem::take(&mut extra), stored, old_map, &mut content).map_err(named)?;
        each(item, &mut content)?;
        let left = content.limit();
        skip_rest(&mut input, left, stored)?;
    }
    if extra != Extensions::default() {
        return Err(Error::integrity("the archive ends after an extension header"));
    }
    Ok(())
}

/// The next header, or `None` at the end of the archive, after which only zeros may follow.
fn next_header(input: &mut impl Input, first: bool) -> Result<Option<Header>> {
    let mut block = [0; BLOCK];
    match read_block(input, &mut block)? {
        true => {}
        false if first => {
            return Err(Error::integrity("the archive is empty: it has no end marker"));
        }
        false => return Ok(None),
    }
    if block.iter().any(|byte| *byte != 0) {
        return Header::parse(block).map(Some);
    }
    // Data after the end marker is padding, or something that another reader would interpret as entries.
    let mut rest = [0; 8192];
    loop {
        match input.read(&mut rest) {
            Ok(0) => return Ok(None),
            Ok(read) if rest[..read].iter().any(|byte| *byte != 0) => {
                return Err(Error::safety("the archive has data after its end marker"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(error)),
        }
    }
}

/// Reads one block; false at the end of the input.
fn read_block(input: &mut impl Input, block: &mut [u8; BLOCK]) -> Result<bool> {
    let mut filled = 0;
    while filled < BLOCK {
        match input.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => {
                return Err(Error::integrity("the archive is corrupt: it ends inside a header"));
            }
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(error)),
        }
    }
    Ok(true)
}

/// Whether the first bytes of a file can be those of an archive: a header, or the zeros of an archive without members.
pub(crate) fn is_archive(start: &[u8]) -> bool {
    start
        .first_chunk::<BLOCK>()
        .is_some_and(|block| block.iter().all(|byte| *byte == 0) || header::has_checksum(block))
}

/// Skips the `left` of `stored` bytes and the padding to whole blocks. The padding of the last entry may be missing: `umoci insert` writes none,
/// and Docker, Podman and umoci read that.
fn skip_rest(input: &mut impl Input, left: u64, stored: u64) -> Result<()> {
    let padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
    input.skip(left).map_err(read_error)?;
    io::copy(&mut input.by_ref().take(padding), &mut io::sink()).map_err(read_error).map(drop)
}

/// The error for a failed read of an archive: of the system, of a limit, or of the archive itself.
pub(crate) fn read_error(error: io::Error) -> Error {
    let is_from_system = error.raw_os_error().is_some();
    let error = Error::from(error);
    if is_from_system {
        error.context("reading the archive")
    } else if error.find::<LimitExceeded>().is_some() {
        error.with_kind(invarlock_error::Kind::Safety).context("decompressing the archive")
    } else if error.find::<WindowTooLarge>().is_some() {
        error
            .with_kind(invarlock_error::Kind::Unsupported)
            .context("decompressing the archive")
            .with_hint(WindowTooLarge::HINT)
    } else {
        error.without_hint().with_kind(invarlock_error::Kind::Integrity).context("the archive is corrupt")
    }
}

/// An entry from its header and the extension headers before it.
fn item(
    header: &Header,
    mut extra: Extensions,
    mut stored: u64,
    old_map: Option<(Vec<Extent>, u64)>,
    content: &mut dyn Read,
) -> Result<Item> {
    let holes = match extra.sparse.finish(&mut stored, content)? {
        Some(_) if header.kind() != b'0' => {
            return Err(Error::safety("a sparse entry that is not a file"));
        }
        Some(map) => Some(map),
        None => old_map,
    };
    let size = holes.as_ref().map_or(stored, |(_, size)| *size);
    let raw = extra.sparse.name.take().or_else(|| extra.path.take()).unwrap_or_else(|| header.path());
    let link = |extra: &mut Extensions| extra.link.take().unwrap_or_else(|| header.link());
    let kind = match header.kind() {
        b'5' => Kind::Directory,
        // Old archives contain directories like this, and readers disagree about them.
        b'0' | b'S' if raw.ends_with(b"/") || header.path().ends_with(b"/") => {
            return Err(Error::safety("a file whose name ends in '/'"));
        }
        b'0' | b'S' => holes.map_or(Kind::File, |(extents, _)| Kind::Sparse(extents)),
        b'2' => Kind::Symlink(path::target(link(&mut extra))?),
        b'1' => Kind::Hardlink(path::clean(&link(&mut extra))?),
        b'3' => Kind::Special("a character device"),
        b'4' => Kind::Special("a block device"),
        b'6' => Kind::Special("a fifo"),
        other => return Err(Error::safety(format!("an entry of type {:?}", char::from(other)))),
    };
    let is_file = matches!(kind, Kind::File | Kind::Sparse(_));
    if !is_file && size != 0 {
        return Err(Error::safety("an entry of a type that has no content has some"));
    }
    let path = path::clean(&raw)?;
    if path.is_empty() && kind != Kind::Directory {
        return Err(Error::safety("a root entry that is not a directory"));
    }
    // The name makes a whiteout, whatever the type: some writers link equal whiteouts to each other.
    let (path, kind) = match path::whiteout(&path)? {
        None => (path, kind),
        Some(_) if size != 0 => return Err(Error::safety("a whiteout with content")),
        Some(WhiteoutMark::Whiteout(path)) => (path, Kind::Whiteout),
        Some(WhiteoutMark::Opaque(path)) => (path, Kind::Opaque),
    };
    if matches!(&kind, Kind::Hardlink(target) if path::whiteout(target)?.is_some()) {
        return Err(Error::safety("a hard link to a whiteout"));
    }
    let mtime = extra.mtime.unwrap_or_else(|| header.mtime());
    let Extensions { attributes, dropped, .. } = extra;
    Ok(Item { path, kind, mode: header.mode()?, size, mtime, attributes, dropped })
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(duplicate()),
    }
}

fn duplicate() -> Error {
    Error::safety("duplicate extension headers or records")
}

/// A decimal number without sign or space.
fn decimal(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}
