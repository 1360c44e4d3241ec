//! Opens a file of a dataset: decompresses it, skips a byte-order mark and recognises its format.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;

use super::{Found, Rows};
use crate::{files, limits};
use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result, bail};

/// Bytes that a reader may take ahead of the row that it reads.
const READ_AHEAD: u64 = 1 << 17;
const UTF8_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// How rows lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A JSON object in each line.
    JsonLines,
    /// One JSON array of objects.
    JsonArray,
    /// A header and rows of fields.
    Table { delimiter: u8 },
    /// A text in each line.
    Text,
    /// Apache Parquet.
    Parquet,
}

/// An opened file.
pub(super) struct Source {
    pub format: Format,
    /// The decompressed bytes after a byte-order mark; the whole file for Parquet.
    pub reader: BufReader<Bounded>,
    /// How much of a row may still be read.
    pub row: RowLimit,
    /// Where the file is.
    pub path: PathBuf,
}

impl Source {
    /// Opens a file. Its name decides between formats of text; compression and Parquet are recognised by their first bytes.
    pub fn open(path: &Path) -> Result<Self> {
        let (mut file, _) = files::open(path)?;
        let read = || format!("{}: cannot read the file", path.display());
        let mut start = Vec::new();
        file.by_ref().take(64).read_to_end(&mut start).with_context(read).kind(Kind::Input)?;
        files::reject_lfs_pointer(path, &start)?;
        // The system-call filter of a measurement allows neither seeking nor a second handle.
        let whole = Cursor::new(start.clone()).chain(file);
        let decoded: Box<dyn Read> = match start.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(BufReader::new(whole))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                Box::new(zstd::Decoder::new(whole).err_kind(Kind::System).with_context(read)?)
            }
            _ => Box::new(whole),
        };
        let row = RowLimit::new();
        let mut reader = BufReader::with_capacity(1 << 16, Bounded { inner: decoded, row: row.clone() });
        let format = (|| {
            let start = skip_mark(&mut reader)?;
            recognise(path, &start)
        })()
        .context(path.display().to_string())?;
        Ok(Self { format, reader, row, path: path.to_owned() })
    }

    /// Reads a text from each line, without its line ending, until enough rows are there.
    pub fn lines(mut self, rows: &mut Rows, found_in: impl Fn(&[u8]) -> Result<Found>) -> Result<()> {
        let mut line = Vec::new();
        for number in 1u64.. {
            if rows.is_complete() {
                break;
            }
            line.clear();
            self.row.start();
            let at = || format!("line {number}");
            if self.reader.read_until(b'\n', &mut line).map_err(RowLimit::describe).with_context(at)? == 0 {
                break;
            }
            let row = line.strip_suffix(b"\n").unwrap_or(&line);
            let row = row.strip_suffix(b"\r").unwrap_or(row);
            if row.len() > limits::LINE_BYTES {
                return Err(too_long()).with_context(at);
            }
            found_in(row).and_then(|found| rows.add_found(found)).with_context(at)?;
        }
        Ok(())
    }
}

/// The first bytes after a byte-order mark, which is skipped.
fn skip_mark(reader: &mut BufReader<Bounded>) -> Result<Vec<u8>> {
    let start = reader.fill_buf().map_err(RowLimit::describe)?;
    if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) {
        return Err(Error::input("UTF-16 text is not supported")).hint("convert the file to UTF-8");
    }
    if start.starts_with(&UTF8_MARK) {
        reader.consume(UTF8_MARK.len());
    }
    let start = reader.fill_buf().map_err(RowLimit::describe)?;
    Ok(start.iter().copied().take(4096).collect())
}

fn recognise(path: &Path, start: &[u8]) -> Result<Format> {
    if start.starts_with(b"PAR1") {
        return Ok(Format::Parquet);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    let first = start.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    Ok(match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("csv") => Format::Table { delimiter: b',' },
        Some("tsv") => Format::Table { delimiter: b'\t' },
        Some("txt" | "raw" | "tokens") => Format::Text,
        Some("arrow") => {
            return Err(Error::unsupported("Arrow files are not supported"))
                .hint("save the dataset as Parquet or JSON lines, such as with `Dataset.to_parquet`");
        }
        Some("zip" | "xz" | "bz2" | "7z" | "tar") => {
            bail!(Unsupported, "this compression is not supported; supported: gzip, zstd")
        }
        _ if first == Some(b'[') => Format::JsonArray,
        _ => Format::JsonLines,
    })
}

/// Bytes that may be read until the next call of [`RowLimit::start`]. Every decoder reads below it, so no row, and no expansion of a
/// compressed one, takes more memory.
#[derive(Debug, Clone)]
pub(super) struct RowLimit(Rc<Cell<u64>>);

impl RowLimit {
    fn new() -> Self {
        Self(Rc::new(Cell::new(limits::LINE_BYTES as u64 + READ_AHEAD)))
    }

    /// A row starts.
    pub fn start(&self) {
        self.0.set(limits::LINE_BYTES as u64 + READ_AHEAD);
    }

    /// Whether the row was too long.
    pub fn is_exceeded(&self) -> bool {
        self.0.get() == 0
    }

    /// The error for a failed read.
    pub fn describe(error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::FileTooLarge => too_long(),
            _ => Error::from(error).with_kind(Kind::Input).context("cannot read the file"),
        }
    }
}

/// The error for a row beyond the limit.
pub(super) fn too_long() -> Error {
    Error::input(format!("longer than {} bytes", limits::LINE_BYTES))
}

/// A reader that stops when a row is too long.
pub(super) struct Bounded {
    inner: Box<dyn Read>,
    row: RowLimit,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.row.0.get();
        if left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let take = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..take])?;
        self.row.0.set(left - read as u64);
        Ok(read)
    }
}
