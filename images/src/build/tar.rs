//! Headers of the archives that we write: plain ones where a name or a size fits in, with PAX records before them where it does not.

use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::attributes::Attributes;

/// From here on a size does not fit into a header's octal digits.
const LARGE: u64 = 1 << 33;
/// What stands in a header whose name is in the record before it.
const LONG: &str = "long-name";

/// One entry, owned by nobody.
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

    pub fn with(self, attributes: Attributes) -> Self {
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

    /// Writes all that comes before the content.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let slash = if self.kind.is_dir() { "/" } else { "" };
        let name = format!("{}{slash}", self.path);
        let mut header = self.header(self.kind, self.mode);
        let mut records = Vec::new();
        // A prefix that the other writers of archives would choose otherwise is no gain over a record.
        if name.len() > 99 {
            record(&mut records, b"path", name.as_bytes());
            header.set_path(LONG)?;
        } else {
            put(&mut header.as_mut_bytes()[..100], &name);
        }
        match self.target {
            Some(target) if target.len() > 99 => record(&mut records, b"linkpath", target.as_bytes()),
            Some(target) => put(&mut header.as_mut_bytes()[157..257], target),
            None => {}
        }
        if self.size >= LARGE {
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

/// As it is: the library would clean it up.
fn put(field: &mut [u8], text: &str) {
    field[..text.len()].copy_from_slice(text.as_bytes());
}

/// `LENGTH KEY=VALUE\n`, the length counting its own digits.
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
    fn a_record_counts_its_own_length() {
        for size in [0, 1, 80, 90, 91, 92, 93, 94, 95, 96, 986, 987, 988, 989, 990, 991, 992] {
            let mut bytes = Vec::new();
            record(&mut bytes, b"path", &vec![b'x'; size]);
            let text = String::from_utf8(bytes.clone()).expect("text");
            let length: usize = text.split(' ').next().expect("length").parse().expect("number");
            assert_eq!(length, bytes.len(), "{size}");
        }
    }
}
