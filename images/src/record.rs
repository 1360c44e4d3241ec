//! What an unpacked layer holds: a line of JSON for each thing in it, written and read as a stream, so that no image is too large for
//! our memory.

use invarlock_error::Context as _;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use serde::{Deserialize, Serialize};

use crate::digest::Hashing;
use crate::{Digest, Error, Result};

/// A path of 4096 bytes, each escaped, and the rest.
const LONGEST_LINE: u64 = 64 << 10;

/// One thing in a tree. Files and links come in the archive's order, directories and whiteouts behind them; nothing comes twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub(crate) enum Line {
    File {
        path: String,
        mode: u32,
        size: u64,
        sha256: Digest,
        /// Of its extended attributes, where it has any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attributes: Option<Digest>,
    },
    Symlink {
        path: String,
        target: String,
    },
    /// Another name of a file that has a line of its own.
    Hardlink {
        path: String,
        target: String,
    },
    /// The root has the empty path.
    Directory {
        path: String,
        mode: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attributes: Option<Digest>,
    },
    /// What is of that path in lower layers is gone.
    Whiteout {
        path: String,
    },
    /// The last line.
    End(Totals),
}

impl Line {
    pub fn path(&self) -> &str {
        match self {
            Self::File { path, .. }
            | Self::Symlink { path, .. }
            | Self::Hardlink { path, .. }
            | Self::Directory { path, .. }
            | Self::Whiteout { path } => path,
            Self::End(_) => "",
        }
    }
}

/// What a tree is all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Totals {
    /// Things in it, its root included.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Whiteouts and opaque directories: what it takes away from the layers below.
    pub removals: u64,
    /// Its root is opaque: nothing of the layers below is seen.
    pub opaque_root: bool,
    /// Set-id bits that the archive has and the tree has not.
    pub dropped_set_id: u64,
    /// Devices and fifos likewise.
    pub dropped_devices: u64,
    /// Extended attributes likewise.
    pub dropped_attributes: u64,
}

/// A record's digest and totals: kept beside the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seal {
    pub record: Digest,
    pub totals: Totals,
    /// Of the list of digests by which the kernel holds its files, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity: Option<Digest>,
}

/// Writes a record.
pub(crate) struct Writer<W: Write>(Hashing<BufWriter<W>>);

impl<W: Write> Writer<W> {
    pub fn new(to: W) -> Self {
        Self(Hashing::new(BufWriter::with_capacity(64 << 10, to)))
    }

    pub fn line(&mut self, line: &Line) -> Result<()> {
        serde_json::to_writer(&mut self.0, line)
            .map_err(io::Error::from)
            .and_then(|()| self.0.write_all(b"\n"))
            .context("writing the record of a tree")
    }

    /// The last line, and the seal of all.
    pub fn finish(mut self, totals: Totals) -> Result<Seal> {
        self.line(&Line::End(totals))?;
        let (mut inner, _, record) = self.0.finish();
        inner.flush().context("writing the record of a tree")?;
        Ok(Seal { record, totals, verity: None })
    }
}

/// Reads the record that `seal` belongs to, and calls `each` for every line but the last. A record that is not the sealed one is an
/// error whatever `each` says of it.
pub(crate) fn read(from: impl Read, seal: &Seal, mut each: impl FnMut(Line) -> Result<()>) -> Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, Hashing::new(from));
    let result = lines(&mut reader, seal, &mut each);
    io::copy(&mut reader, &mut io::sink()).context("reading the record of a tree")?;
    let found = reader.into_inner().finish().2;
    if found != seal.record {
        return Err(Error::integrity(format!(
            "the record of what it holds has digest {found}, not the one that was noted"
        )));
    }
    result
}

fn lines(reader: &mut impl BufRead, seal: &Seal, each: &mut impl FnMut(Line) -> Result<()>) -> Result<()> {
    let damaged = || Error::integrity("the record of what it holds is damaged");
    let mut text = Vec::new();
    let mut count = 0u64;
    loop {
        text.clear();
        let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut text);
        read.context("reading the record of a tree")?;
        match serde_json::from_slice(&text).map_err(|_| damaged())? {
            Line::End(totals) => {
                let end = reader.fill_buf().context("reading the record of a tree")?.is_empty();
                return match end && totals == seal.totals && totals.entries == count {
                    true => Ok(()),
                    false => Err(damaged()),
                };
            }
            line => each(line)?,
        }
        count += 1;
    }
}
