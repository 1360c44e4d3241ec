//! The record of an extracted layer: one line of JSON per entry, followed by the totals. It is written and read as a stream, so memory use
//! does not depend on the size of the image.
//!
//! The record is trusted only if it has the digest in the seal, a file beside the extracted layer.

use invarlock_error::Context as _;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use serde::{Deserialize, Serialize};

use crate::layer::entry::{Line, Totals};
use crate::oci::{Digest, Hashing};
use crate::{Error, Result};

/// Longest line in bytes: two paths of 4096 bytes, each byte escaped, and the rest.
const MAX_LINE: u64 = 64 << 10;

/// The seal: a file beside the extracted layer with the digest of its record and the totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seal {
    pub record: Digest,
    pub totals: Totals,
    /// Digest of the list of fs-verity digests, if fs-verity is enabled for the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity: Option<Digest>,
}

/// Writes a record.
pub(crate) struct RecordWriter<W: Write>(Hashing<BufWriter<W>>);

impl<W: Write> RecordWriter<W> {
    pub fn new(file: W) -> Self {
        Self(Hashing::new(BufWriter::with_capacity(64 << 10, file)))
    }

    /// Writes the line of an entry.
    pub fn write(&mut self, line: &Line) -> Result<()> {
        serde_json::to_writer(&mut self.0, line)
            .map_err(io::Error::from)
            .and_then(|()| self.0.write_all(b"\n"))
            .context("writing a record")
    }

    /// Writes the last line and returns the seal.
    pub fn finish(mut self, totals: Totals) -> Result<Seal> {
        self.write(&Line::End(totals))?;
        let (mut inner, _, record) = self.0.finish();
        inner.flush().context("writing a record")?;
        Ok(Seal { record, totals, verity: None })
    }
}

/// Reads a record and calls `visit` for the line of each entry. A wrong digest takes precedence over an error of `visit`.
pub(crate) fn read(source: impl Read, seal: &Seal, mut visit: impl FnMut(Line) -> Result<()>) -> Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, Hashing::new(source));
    let result = read_lines(&mut reader, seal, &mut visit);
    io::copy(&mut reader, &mut io::sink()).context("reading a record")?;
    let found = reader.into_inner().finish().2;
    if found != seal.record {
        return Err(Error::integrity(format!(
            "its record has digest {found}, but its seal contains {}",
            seal.record
        )));
    }
    result
}

fn read_lines(
    reader: &mut impl BufRead,
    seal: &Seal,
    visit: &mut impl FnMut(Line) -> Result<()>,
) -> Result<()> {
    let malformed = || Error::integrity("its record is malformed");
    let mut text = Vec::new();
    let mut count = 0u64;
    loop {
        text.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut text);
        read.context("reading a record")?;
        match serde_json::from_slice(&text).map_err(|_| malformed())? {
            Line::End(totals) => {
                let is_last = reader.fill_buf().context("reading a record")?.is_empty();
                return match is_last && totals == seal.totals && totals.entries == count {
                    true => Ok(()),
                    false => Err(malformed()),
                };
            }
            line => visit(line)?,
        }
        count += 1;
    }
}
