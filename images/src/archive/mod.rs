//! The entries of a tar archive, strictly: whatever two readers could understand differently is refused.
//!
//! Written here, and not left to the `tar` crate: what headers mean together is where readers of archives have had their holes
//! (CVE-2025-62518, CVE-2026-33055), and that crate reads numbers more freely than others do and hides the extra headers of files with
//! holes. Tests compare what is understood with GNU tar and with Python's `tarfile`.

mod block;
mod extension;
mod path;
mod sparse;

use std::io::{self, Read};

use block::{BLOCK, Header};
use extension::{Extensions, is_extension};
use path::Mark;

use crate::digest::TooMuch;
use crate::packing::WindowTooLarge;
use crate::{Error, Result};

pub(crate) use path::DEEPEST;
pub(crate) use sparse::Piece;

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
    /// A file of which only pieces are stored.
    Sparse(Vec<Piece>),
    Symlink(String),
    /// To an earlier file, by its path.
    Hardlink(String),
    /// Nothing of lower layers is here any more.
    Whiteout,
    /// Nothing of lower layers is below here any more.
    Opaque,
    /// A device or a fifo.
    Special(&'static str),
}

/// An entry, with nothing in it that leads anywhere but down.
#[derive(Debug)]
pub(crate) struct Item {
    /// Names joined by `/`; empty for the root itself.
    pub path: String,
    pub kind: Kind,
    pub mode: u32,
    /// Bytes of the file; with holes, more than are stored.
    pub size: u64,
    pub mtime: u64,
    /// Extended attributes that are kept.
    pub attributes: Vec<(String, Vec<u8>)>,
    /// How many are not.
    pub dropped: u32,
}

/// Where an archive is read from, and how it leaves out what nobody reads.
pub(crate) trait Input: Read {
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

/// Calls `each` for every entry; the reader it gets has exactly what is stored of the entry's content.
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
            extra.take_in(&header, &mut content)?;
            finish(&mut input, 0, stored)?;
            continue;
        }
        let stored = extra.size(&header).map_err(named)?;
        let old_map = match header.kind() {
            b'S' => Some(sparse::old(&header, stored, &mut input).map_err(named)?),
            _ => None,
        };
        let mut content = input.by_ref().take(stored);
        let item = item(&header, std::mem::take(&mut extra), stored, old_map, &mut content).map_err(named)?;
        each(item, &mut content)?;
        let left = content.limit();
        finish(&mut input, left, stored)?;
    }
    if extra != Extensions::default() {
        return Err(Error::integrity("the archive ends after an extension header"));
    }
    Ok(())
}

/// The next header; none at the end, behind which there may only be zeros.
fn next_header(input: &mut impl Input, first: bool) -> Result<Option<Header>> {
    let mut block = [0; BLOCK];
    match read_block(input, &mut block)? {
        true => {}
        false if first => {
            return Err(Error::integrity("the archive is empty; it has not even an end"));
        }
        false => return Ok(None),
    }
    if block.iter().any(|byte| *byte != 0) {
        return Header::parse(block).map(Some);
    }
    // What follows the end mark is padding, or something that another reader would take for entries.
    let mut rest = [0; 8192];
    loop {
        match input.read(&mut rest) {
            Ok(0) => return Ok(None),
            Ok(read) if rest[..read].iter().any(|byte| *byte != 0) => {
                return Err(Error::safety("the archive goes on after its end"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(damaged(error)),
        }
    }
}

/// False at the very end.
fn read_block(input: &mut impl Input, block: &mut [u8; BLOCK]) -> Result<bool> {
    let mut filled = 0;
    while filled < BLOCK {
        match input.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => {
                return Err(Error::integrity("the archive is damaged: it ends inside a header"));
            }
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(damaged(error)),
        }
    }
    Ok(true)
}

/// Passes over what is `left` of `stored` bytes, and what fills them up to whole blocks.
fn finish(input: &mut impl Input, left: u64, stored: u64) -> Result<()> {
    let padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
    input.skip(left + padding).map_err(damaged)
}

/// Tells errors of the system from those of the bytes.
pub(crate) fn damaged(error: io::Error) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<TooMuch>()) {
        return Error::safety(format!("unpacking: {error}"));
    }
    if error.get_ref().is_some_and(|inner| inner.is::<WindowTooLarge>()) {
        return Error::unsupported(format!("unpacking: {error}"));
    }
    match error.raw_os_error() {
        Some(_) => Error::system(format!("unpacking: {error}")),
        None => Error::integrity(format!("the archive is damaged: {error}")),
    }
}

/// An entry from its header and what stood before it.
fn item(
    header: &Header,
    mut extra: Extensions,
    mut stored: u64,
    old_map: Option<(Vec<Piece>, u64)>,
    content: &mut dyn Read,
) -> Result<Item> {
    let holes = match extra.sparse.finish(&mut stored, content)? {
        Some(_) if header.kind() != b'0' => {
            return Err(Error::safety("holes in what is no file"));
        }
        Some(map) => Some(map),
        None => old_map,
    };
    let size = holes.as_ref().map_or(stored, |(_, size)| *size);
    let raw = extra.sparse.name.take().or_else(|| extra.path.take()).unwrap_or_else(|| header.path());
    let link = |extra: &mut Extensions| extra.link.take().unwrap_or_else(|| header.link());
    let kind = match header.kind() {
        b'5' => Kind::Directory,
        // Old archives wrote directories like this, and readers disagree about it.
        b'0' | b'S' if raw.ends_with(b"/") || header.path().ends_with(b"/") => {
            return Err(Error::safety("a file whose name ends in '/'"));
        }
        b'0' | b'S' => holes.map_or(Kind::File, |(pieces, _)| Kind::Sparse(pieces)),
        b'2' => Kind::Symlink(path::target(link(&mut extra))?),
        b'1' => Kind::Hardlink(path::clean(&link(&mut extra))?),
        b'3' => Kind::Special("a character device"),
        b'4' => Kind::Special("a block device"),
        b'6' => Kind::Special("a fifo"),
        other => return Err(Error::safety(format!("an entry of type {:?}", char::from(other)))),
    };
    let is_file = matches!(kind, Kind::File | Kind::Sparse(_));
    if !is_file && size != 0 {
        return Err(Error::safety("content where there can be none"));
    }
    let path = path::clean(&raw)?;
    if path.is_empty() && kind != Kind::Directory {
        return Err(Error::safety("a root that is not a directory"));
    }
    let (path, kind) = match path::mark(&path)? {
        None => (path, kind),
        Some(_) if kind != Kind::File || size != 0 => {
            return Err(Error::safety("a whiteout that is more than an empty file"));
        }
        Some(Mark::Whiteout(path)) => (path, Kind::Whiteout),
        Some(Mark::Opaque(path)) => (path, Kind::Opaque),
    };
    if matches!(&kind, Kind::Hardlink(target) if path::mark(target)?.is_some()) {
        return Err(Error::safety("a hard link to a whiteout"));
    }
    let mtime = extra.mtime.unwrap_or_else(|| header.mtime());
    let Extensions { attributes, dropped, .. } = extra;
    Ok(Item { path, kind, mode: header.mode()?, size, mtime, attributes, dropped })
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice()),
    }
}

fn twice() -> Error {
    Error::safety("extension headers that say the same thing twice")
}

/// A decimal number, and nothing but its digits.
fn decimal(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}
