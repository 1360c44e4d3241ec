//! Extension headers, which precede an entry: PAX records and long names of GNU tar.

use std::io::Read;

use super::header::Header;
use super::{Attributes, decimal, duplicate, is_kept, read_error, set, sparse};
use crate::{Error, Result};

/// Largest extension header, in bytes.
const MAX_LENGTH: u64 = 1 << 20;
/// Most attributes of one entry.
const MAX_ATTRIBUTES: usize = 64;

/// Sizes from here on do not fit into the eleven octal digits of a header and are only in a PAX record.
const MIN_RECORD_SIZE: u64 = 1 << 33;

/// The contents of the extension headers of one entry.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Extensions {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    size: Option<u64>,
    pub mtime: Option<u64>,
    pub sparse: sparse::Records,
    /// Extended attributes that are kept.
    pub attributes: Attributes,
    /// Number of extended attributes that are not kept.
    pub dropped: u32,
    pax: bool,
}

/// Whether it is an extension header.
pub(super) fn is_extension(header: &Header) -> bool {
    matches!(header.kind(), b'L' | b'K' | b'x' | b'g')
}

impl Extensions {
    /// Adds an extension header.
    pub fn add(&mut self, header: &Header, content: &mut dyn Read) -> Result<()> {
        let size = header.size()?;
        if size > MAX_LENGTH {
            return Err(Error::safety(format!("an extension header of {size} bytes")));
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(read_error)?;
        if bytes.len() as u64 != size {
            return Err(Error::integrity("the archive ends inside an extension header"));
        }
        match header.kind() {
            b'L' => set(&mut self.path, long_name(bytes)?),
            b'K' => set(&mut self.link, long_name(bytes)?),
            b'g' => records(&bytes, global),
            _ if std::mem::replace(&mut self.pax, true) => Err(duplicate()),
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
                Some(key) => self.sparse.add(key, value),
                None => self.attribute(key, value),
            },
        }
    }

    /// Keeps an extended attribute; other records, such as owners, are ignored.
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
            return Err(Error::safety("an extended attribute with an impossible name"));
        }
        if self.attributes.iter().any(|(other, _)| other == name) {
            return Err(duplicate());
        }
        if self.attributes.len() >= MAX_ATTRIBUTES {
            return Err(Error::safety(format!("more than {MAX_ATTRIBUTES} extended attributes")));
        }
        self.attributes.push((name.to_owned(), value.to_vec()));
        Ok(())
    }

    /// The size of the entry of `header`. A size in a PAX record must agree with it; the header contains 0 if the size does not fit.
    pub fn size(&self, header: &Header) -> Result<u64> {
        let size = header.size()?;
        match self.size {
            Some(other) if other == size || size == 0 && other >= MIN_RECORD_SIZE => Ok(other),
            None => Ok(size),
            Some(_) => Err(Error::safety("the header and the PAX record have different sizes")),
        }
    }
}

/// A global header applies to every following entry. Records that would change an entry are refused.
fn global(key: &[u8], _: &[u8]) -> Result<()> {
    let changes_entries = [&b"path"[..], b"linkpath", b"size"].contains(&key)
        || [&b"GNU.sparse."[..], b"SCHILY.xattr."].iter().any(|it| key.starts_with(it));
    match changes_entries {
        true => Err(Error::safety("a global PAX header that changes every entry")),
        false => Ok(()),
    }
}

/// Parses PAX records: `LENGTH KEY=VALUE\n`, where the length is that of the whole record.
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

/// A long name must end with a NUL: without one, GNU tar continues into the padding of the block.
fn long_name(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    match bytes.pop() {
        Some(0) => Ok(bytes),
        _ => Err(Error::safety("a long name without a terminating NUL")),
    }
}

fn malformed() -> Error {
    Error::integrity("malformed PAX record")
}
