//! Writes headers: plain ones where names and sizes fit, preceded by PAX records where they do not.

use std::io::{self, Write};

use ::tar::{EntryType, Header};

use super::Attributes;

/// Sizes from here on do not fit into the octal digits of a header.
const MIN_RECORD_SIZE: u64 = 1 << 33;
/// The name in a header whose real name is in a PAX record.
const LONG_NAME: &str = "long-name";

/// One entry, owned by user 0 and group 0.
pub(crate) struct Entry<'a> {
    path: &'a str,
    time: u64,
    mode: u32,
    attributes: Attributes,
    kind: EntryType,
    size: u64,
    target: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// An empty file.
    pub fn new(path: &'a str, time: u64, mode: u32) -> Self {
        let kind = EntryType::Regular;
        Self { path, time, mode, attributes: Vec::new(), kind, size: 0, target: None }
    }

    pub fn with_attributes(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }

    pub fn directory(self) -> Self {
        Self { kind: EntryType::Directory, ..self }
    }

    pub fn file(self, size: u64) -> Self {
        Self { size, ..self }
    }

    pub fn symlink(self, target: &'a str) -> Self {
        Self { kind: EntryType::Symlink, target: Some(target), ..self }
    }

    pub fn hardlink(self, target: &'a str) -> Self {
        Self { kind: EntryType::Link, target: Some(target), ..self }
    }

    /// Writes everything that precedes the content.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let slash = if self.kind.is_dir() { "/" } else { "" };
        let name = format!("{}{slash}", self.path);
        let mut header = self.header(self.kind, self.mode);
        let mut records = Vec::new();
        // Writers split a long name into prefix and name differently, so a record is used instead.
        if name.len() > 99 {
            record(&mut records, b"path", name.as_bytes());
            header.set_path(LONG_NAME)?;
        } else {
            copy_text(&mut header.as_mut_bytes()[..100], &name);
        }
        match self.target {
            Some(target) if target.len() > 99 => record(&mut records, b"linkpath", target.as_bytes()),
            Some(target) => copy_text(&mut header.as_mut_bytes()[157..257], target),
            None => {}
        }
        if self.size >= MIN_RECORD_SIZE {
            record(&mut records, b"size", self.size.to_string().as_bytes());
        } else {
            header.set_size(self.size);
        }
        for (name, value) in &self.attributes {
            record(&mut records, format!("SCHILY.xattr.{name}").as_bytes(), value);
        }
        if !records.is_empty() {
            let mut before = self.header(EntryType::XHeader, 0o644);
            before.set_path("pax")?;
            before.set_size(records.len() as u64);
            before.set_cksum();
            to.write_all(before.as_bytes())?;
            records.resize(records.len().next_multiple_of(512), 0);
            to.write_all(&records)?;
        }
        header.set_cksum();
        to.write_all(header.as_bytes())
    }

    fn header(&self, kind: EntryType, mode: u32) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.time);
        header.set_size(0);
        header
    }
}

/// Copies the text unchanged; the library would normalize it.
fn copy_text(field: &mut [u8], text: &str) {
    field[..text.len()].copy_from_slice(text.as_bytes());
}

/// Appends `LENGTH KEY=VALUE\n`, where the length includes its own digits.
fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    to.extend_from_slice(length.to_string().as_bytes());
    for part in [&b" "[..], key, b"=", value, b"\n"] {
        to.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_length_includes_its_own_digits() {
        for size in [0, 1, 80, 90, 91, 92, 93, 94, 95, 96, 986, 987, 988, 989, 990, 991, 992] {
            let mut bytes = Vec::new();
            record(&mut bytes, b"path", &vec![b'x'; size]);
            let text = String::from_utf8(bytes.clone()).expect("text");
            let length: usize = text.split(' ').next().expect("length").parse().expect("number");
            assert_eq!(length, bytes.len(), "{size}");
        }
    }
}
