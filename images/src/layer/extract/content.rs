//! Writing the content of a file. Long runs of zeros become holes.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};

use invarlock_error::Context as _;

use crate::oci::{Digest, Hashing};
use crate::tar::{Extent, read_error};
use crate::{Error, Result};

/// Bytes of zeros that become a hole. Shorter runs are written: a hole for each of them would need more metadata than it saves.
const HOLE: usize = 64 << 10;

/// The stored content of a file.
pub(super) struct Content<'a> {
    pub source: &'a mut dyn Read,
    /// Its length is a multiple of [`HOLE`].
    pub buffer: &'a mut [u8],
    /// Most bytes to write.
    pub max_data: u64,
}

impl Content<'_> {
    /// Writes the extents of a file of `size` bytes, with holes between them. Returns the digest of the whole file, and the number of bytes
    /// that were written.
    pub fn write_to(&mut self, file: &File, size: u64, extents: &[Extent]) -> Result<(Digest, u64)> {
        let mut hashing = Hashing::new(());
        let mut output = Output { file, offset: 0, written: 0 };
        let mut position = 0;
        for extent in extents {
            hashing.update_zeros(extent.offset - position);
            position = extent.offset;
            let end = extent.offset + extent.length;
            while position < end {
                let length = self.buffer.len().min(usize::try_from(end - position).unwrap_or(usize::MAX));
                self.fill(length)?;
                let bytes = &self.buffer[..length];
                hashing.update(bytes);
                output.write_with_holes(position, bytes)?;
                if output.written > self.max_data {
                    return Err(too_much_data(self.max_data));
                }
                position += length as u64;
            }
        }
        hashing.update_zeros(size - position);
        if output.offset != size {
            file.set_len(size).context("writing a file")?;
        }
        Ok((hashing.finish().2, output.written))
    }

    /// Fills the first `length` bytes of the buffer.
    fn fill(&mut self, length: usize) -> Result<()> {
        let mut filled = 0;
        while filled < length {
            match self.source.read(&mut self.buffer[filled..length]) {
                Ok(0) => return Err(Error::integrity("the archive ends inside a file")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(error)),
            }
        }
        Ok(())
    }
}

/// A file that is being written.
struct Output<'a> {
    file: &'a File,
    /// The offset of the file, which is the end of what was written.
    offset: u64,
    written: u64,
}

impl Output<'_> {
    fn write_with_holes(&mut self, mut position: u64, bytes: &[u8]) -> Result<()> {
        if !bytes.chunks_exact(HOLE).any(is_zero) {
            return self.write(position, bytes);
        }
        for chunk in bytes.chunks(HOLE) {
            if chunk.len() < HOLE || !is_zero(chunk) {
                self.write(position, chunk)?;
            }
            position += chunk.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, position: u64, bytes: &[u8]) -> Result<()> {
        if position != self.offset {
            self.file.seek(SeekFrom::Start(position)).context("writing a file")?;
        }
        self.file.write_all(bytes).context("writing a file")?;
        self.offset = position + bytes.len() as u64;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // The first byte decides for most chunks; the rest is compared with itself, shifted by one byte.
    bytes.first() == Some(&0) && bytes[1..] == bytes[..bytes.len() - 1]
}

/// The error for a layer with too much content for the size of its blob.
pub(super) fn too_much_data(limit: u64) -> Error {
    Error::safety(format!("more than the {limit} bytes allowed for a layer of this size, holes not counted"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn long_runs_of_zeros_become_holes() {
        let dir = invarlock_security::SecureTempDir::new("invarlock-content-").expect("directory");
        let data = |length: usize| vec![7; length];
        let zeros = |length: usize| vec![0; length];
        for (content, written) in [
            (data(10), 10),
            (zeros(10), 10),
            (zeros(HOLE), 0),
            (zeros(HOLE * 9), 0),
            (zeros(HOLE * 9 + 1), 1),
            ([zeros(HOLE), data(1)].concat(), 1),
            ([data(1), zeros(HOLE * 3)].concat(), HOLE + 1),
            ([data(HOLE * 5), zeros(HOLE * 2), data(HOLE)].concat(), HOLE * 6),
        ] {
            let path = dir.path().join("file");
            let file = File::create(&path).expect("file");
            let (size, written) = (content.len() as u64, written as u64);
            let write = |max_data| {
                let mut source = &content[..];
                let mut stored = Content { source: &mut source, buffer: &mut vec![0; HOLE * 4], max_data };
                stored.write_to(&file, size, &[Extent { offset: 0, length: size }])
            };
            assert_eq!(write(written).expect("written"), (Digest::of(&content), written));
            assert!(std::fs::read(&path).expect("read") == content);
            if written == 0 {
                assert_eq!(std::fs::metadata(&path).expect("metadata").blocks(), 0);
            } else {
                assert!(write(written - 1).is_err(), "more than allowed");
            }
        }
    }
}
