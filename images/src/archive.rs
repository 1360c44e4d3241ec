//! The entries of a tar archive, strictly: whatever two readers could understand differently is refused.
//!
//! The `tar` crate cuts the archive into headers and contents (its raw mode); what headers mean together (PAX records, GNU long
//! names) is decided here, because there the known holes are (CVE-2025-62518, CVE-2026-33055).

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::digest::TooMuch;
use crate::{Error, Result};

/// Most bytes of one extension header.
const LONGEST_EXTENSION: u64 = 1 << 20;
const LONGEST_PATH: usize = 4096;
const LONGEST_NAME: usize = 255;
const DEEPEST: usize = 256;

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
    Symlink(String),
    /// To an earlier file, by its path.
    Hardlink(String),
}

/// An entry, with nothing in it that leads anywhere but down.
#[derive(Debug)]
pub(crate) struct Item {
    /// Names joined by `/`; empty for the root itself.
    pub path: String,
    pub kind: Kind,
    pub mode: u32,
    pub size: u64,
    pub mtime: u64,
}

/// Calls `each` for every entry; the reader it gets has exactly the entry's content.
pub(crate) fn entries(
    mut reader: impl Read,
    mut each: impl FnMut(Item, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut archive = tar::Archive::new(&mut reader);
    let mut extra = Extensions::default();
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        let header = entry.header().clone();
        if !extra.take_in(&header, &mut entry)? {
            let item = extra.item(&header).map_err(|error| {
                error.within(format_args!("entry {:?}", String::from_utf8_lossy(&header.path_bytes())))
            })?;
            extra = Extensions::default();
            each(item, &mut entry)?;
        }
    }
    if extra != Extensions::default() {
        return Err(Error::Integrity("the archive ends after an extension header".to_owned()));
    }
    // What follows the end mark is padding, or something that another reader would take for entries.
    let mut rest = [0; 8192];
    loop {
        match reader.read(&mut rest).map_err(damaged)? {
            0 => return Ok(()),
            read if rest[..read].iter().any(|byte| *byte != 0) => {
                return Err(Error::Safety("the archive goes on after its end".to_owned()));
            }
            _ => {}
        }
    }
}

/// Tells errors of the system from those of the bytes.
pub(crate) fn damaged(error: io::Error) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<TooMuch>()) {
        return Error::Safety(format!("unpacking: {error}"));
    }
    match error.raw_os_error() {
        Some(_) => Error::System(format!("unpacking: {error}")),
        None => Error::Integrity(format!("the archive is damaged: {error}")),
    }
}

/// What extension headers say about the entry that follows them.
#[derive(Debug, Default, PartialEq)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<u64>,
    pax: bool,
}

impl Extensions {
    /// Whether the entry was an extension header, and is taken in.
    fn take_in(&mut self, header: &Header, content: &mut dyn Read) -> Result<bool> {
        let kind = header.entry_type();
        if !(kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions())
        {
            return Ok(false);
        }
        let size = header.entry_size().map_err(damaged)?;
        if size > LONGEST_EXTENSION {
            return Err(Error::Safety(format!("an extension header of {size} bytes")));
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() as u64 != size {
            return Err(Error::Integrity("the archive ends inside an extension header".to_owned()));
        }
        match kind {
            EntryType::GNULongName => set(&mut self.path, long_name(bytes))?,
            EntryType::GNULongLink => set(&mut self.link, long_name(bytes))?,
            EntryType::XHeader if self.pax => return Err(twice()),
            EntryType::XHeader => {
                self.pax = true;
                self.records(&bytes, false)?;
            }
            _ => self.records(&bytes, true)?,
        }
        Ok(true)
    }

    /// PAX records: `LENGTH KEY=VALUE\n`, the length counting all of it.
    fn records(&mut self, mut bytes: &[u8], global: bool) -> Result<()> {
        let malformed = || Error::Integrity("a PAX record is malformed".to_owned());
        while !bytes.is_empty() {
            let space = bytes.iter().take(12).position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length =
                number(&bytes[..space]).and_then(|it| usize::try_from(it).ok()).ok_or_else(malformed)?;
            if length <= space + 1 || length > bytes.len() {
                return Err(malformed());
            }
            let (record, rest) = bytes.split_at(length);
            bytes = rest;
            let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" | b"linkpath" | b"size" if global => {
                    return Err(Error::Safety(
                        "a global PAX header that renames or resizes every entry".to_owned(),
                    ));
                }
                b"path" => set(&mut self.path, value.to_vec())?,
                b"linkpath" => set(&mut self.link, value.to_vec())?,
                b"size" => set(&mut self.size, number(value).ok_or_else(malformed)?)?,
                b"mtime" if !global => {
                    let seconds = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                    set(&mut self.mtime, number(seconds).unwrap_or(0))?;
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(Error::Unsupported("a sparse file".to_owned()));
                }
                // Owners, times and extended attributes: none of them is kept.
                _ => {}
            }
        }
        Ok(())
    }

    fn item(&self, header: &Header) -> Result<Item> {
        let size = header.entry_size().map_err(damaged)?;
        if self.size.is_some_and(|other| other != size) {
            return Err(Error::Safety("header and PAX record disagree about the size".to_owned()));
        }
        let raw = self.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        let slash = raw.ends_with(b"/");
        let link = || -> Result<String> {
            let raw = match &self.link {
                Some(link) => link.clone(),
                None => header.link_name_bytes().map(|it| it.into_owned()).unwrap_or_default(),
            };
            if raw.is_empty() || raw.len() >= LONGEST_PATH || raw.contains(&0) {
                return Err(Error::Safety(
                    "a link to an empty or endless name, or one with a NUL".to_owned(),
                ));
            }
            String::from_utf8(raw).map_err(|_| not_utf8())
        };
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Directory,
            // Old archives wrote directories like this, and readers disagree about it.
            EntryType::Regular if slash => {
                return Err(Error::Safety("a file whose name ends in '/'".to_owned()));
            }
            EntryType::Regular => Kind::File,
            EntryType::Symlink => Kind::Symlink(link()?),
            EntryType::Link => Kind::Hardlink(clean(link()?.as_bytes())?),
            EntryType::Char | EntryType::Block => return Err(Error::Safety("a device".to_owned())),
            EntryType::Fifo => return Err(Error::Safety("a fifo".to_owned())),
            EntryType::GNUSparse => return Err(Error::Unsupported("a sparse file".to_owned())),
            other => return Err(Error::Safety(format!("an entry of type {:?}", other.as_byte() as char))),
        };
        if kind != Kind::File && size != 0 {
            return Err(Error::Safety("content where there can be none".to_owned()));
        }
        let path = clean(&raw)?;
        if path.is_empty() && kind != Kind::Directory {
            return Err(Error::Safety("a root that is not a directory".to_owned()));
        }
        let mode = header.mode().map_err(damaged)?;
        let mtime = self.mtime.map_or_else(|| header.mtime().map_err(damaged), Ok)?;
        Ok(Item { path, kind, mode, size, mtime })
    }
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice()),
    }
}

fn twice() -> Error {
    Error::Safety("extension headers that say the same thing twice".to_owned())
}

fn not_utf8() -> Error {
    Error::Unsupported("a name that is not UTF-8".to_owned())
}

fn long_name(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.pop_if(|last| *last == 0);
    bytes
}

fn number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// A path as names joined by `/`. Only what leads down from the root is one.
fn clean(raw: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(raw).map_err(|_| not_utf8())?;
    let bad = |why: &str| Err(Error::Safety(format!("a path that {why}")));
    if text.is_empty() || text.contains('\0') {
        return bad("is empty or has a NUL");
    }
    if text.starts_with('/') {
        return bad("is absolute");
    }
    if text.len() > LONGEST_PATH {
        return bad("is too long");
    }
    let mut rest = text;
    while let Some(tail) = rest.strip_prefix("./") {
        rest = tail;
    }
    let rest = if rest == "." { "" } else { rest };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        // "./", ".", and not "//": the first test saw a leading slash.
        return Ok(String::new());
    }
    if rest.split('/').count() > DEEPEST {
        return bad("is too deep");
    }
    for name in rest.split('/') {
        match name {
            ".." => return bad("leads up"),
            "" | "." => return bad("has an empty name or '.' in it"),
            _ if name.len() > LONGEST_NAME => return bad("has a name too long"),
            ".wh." | ".wh.." | ".wh..." => return bad("is a whiteout of nothing, of '.' or of '..'"),
            _ if name.starts_with(".wh.") => {
                return Err(Error::Unsupported(
                    "a whiteout; layers that delete files of the one below are not built yet".to_owned(),
                ));
            }
            _ => {}
        }
    }
    Ok(rest.to_owned())
}
