//! What stands before an entry and speaks of it: PAX records and GNU's long names.

use std::io::Read;

use super::block::Header;
use super::{damaged, decimal, set, sparse};
use crate::attributes::is_kept;
use crate::{Error, Result};

/// Most bytes of one extension header.
const LONGEST: u64 = 1 << 20;
/// Most attributes of one entry.
const MOST_ATTRIBUTES: usize = 64;

/// A size in a header has eleven digits; larger ones stand in a record only.
const SMALLEST_LARGE: u64 = 1 << 33;

/// What extension headers say about the entry that follows them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Extensions {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    size: Option<u64>,
    pub mtime: Option<u64>,
    pub sparse: sparse::Records,
    /// Extended attributes that are kept.
    pub attributes: Vec<(String, Vec<u8>)>,
    /// How many are not.
    pub dropped: u32,
    pax: bool,
}

/// Whether the header is one of those that speak of the next entry.
pub(super) fn is_extension(header: &Header) -> bool {
    matches!(header.kind(), b'L' | b'K' | b'x' | b'g')
}

impl Extensions {
    /// Takes in an extension header.
    pub fn take_in(&mut self, header: &Header, content: &mut dyn Read) -> Result<()> {
        let size = header.size()?;
        if size > LONGEST {
            return Err(Error::safety(format!("an extension header of {size} bytes")));
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() as u64 != size {
            return Err(Error::integrity("the archive ends inside an extension header"));
        }
        match header.kind() {
            b'L' => set(&mut self.path, long_name(bytes)?),
            b'K' => set(&mut self.link, long_name(bytes)?),
            b'g' => records(&bytes, global),
            _ if std::mem::replace(&mut self.pax, true) => Err(super::twice()),
            _ => records(&bytes, |key, value| self.record(key, value)),
        }
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"path" => set(&mut self.path, value.to_vec()),
            b"linkpath" => set(&mut self.link, value.to_vec()),
            b"size" => set(&mut self.size, decimal(value).ok_or_else(malformed)?),
            b"mtime" => {
                let seconds = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                set(&mut self.mtime, decimal(seconds).unwrap_or(0))
            }
            _ => match key.strip_prefix(b"GNU.sparse.") {
                Some(key) => self.sparse.take_in(key, value),
                None => self.attribute(key, value),
            },
        }
    }

    /// Owners, other times and whatever else there is are not kept.
    fn attribute(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Some(name) = key.strip_prefix(b"SCHILY.xattr.") else {
            self.dropped += u32::from(key.starts_with(b"LIBARCHIVE.xattr."));
            return Ok(());
        };
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| is_kept(name)) else {
            self.dropped += 1;
            return Ok(());
        };
        if name.len() > 255 || name == "user." || name.contains('\0') {
            return Err(Error::safety("an extended attribute whose name no file can have"));
        }
        if self.attributes.iter().any(|(other, _)| other == name) {
            return Err(super::twice());
        }
        if self.attributes.len() >= MOST_ATTRIBUTES {
            return Err(Error::safety(format!("more than {MOST_ATTRIBUTES} extended attributes")));
        }
        self.attributes.push((name.to_owned(), value.to_vec()));
        Ok(())
    }

    /// The size of the entry that `header` begins: the header's, and where a record has one, too, they agree. Only of what the header
    /// has no room for it says 0.
    pub fn size(&self, header: &Header) -> Result<u64> {
        let size = header.size()?;
        match self.size {
            Some(other) if other == size || size == 0 && other >= SMALLEST_LARGE => Ok(other),
            None => Ok(size),
            Some(_) => Err(Error::safety("header and PAX record disagree about the size")),
        }
    }
}

/// A global header speaks of every entry that follows; only what none of ours depends on may stand in it.
fn global(key: &[u8], _: &[u8]) -> Result<()> {
    let touches = [&b"path"[..], b"linkpath", b"size"].contains(&key)
        || [&b"GNU.sparse."[..], b"SCHILY.xattr."].iter().any(|it| key.starts_with(it));
    match touches {
        true => Err(Error::safety("a global PAX header that changes every entry")),
        false => Ok(()),
    }
}

/// PAX records: `LENGTH KEY=VALUE\n`, the length counting all of it.
fn records(mut bytes: &[u8], mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    while !bytes.is_empty() {
        let space = bytes.iter().take(12).position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length = decimal(&bytes[..space]).and_then(|it| usize::try_from(it).ok());
        let length = length.filter(|it| (space + 2..=bytes.len()).contains(it)).ok_or_else(malformed)?;
        let (record, rest) = bytes.split_at(length);
        bytes = rest;
        let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        each(&record[..equals], &record[equals + 1..])?;
    }
    Ok(())
}

/// It ends with a NUL: where none is, GNU tar reads on in what fills the block up.
fn long_name(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    match bytes.pop() {
        Some(0) => Ok(bytes),
        _ => Err(Error::safety("a long name that does not end where its header says")),
    }
}

fn malformed() -> Error {
    Error::integrity("a PAX record is malformed")
}
