//! Change stamps: inode, size, modification time and change time of every entry, from which a change is detected without reading files.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::os::fd::AsFd;

use invarlock_error::Context as _;
use rustix::fs::Stat;

use super::record::{self, Seal};
use crate::Result;
use crate::layer::cursor::{Cursor, split};
use crate::layer::inspect::{altered, inspect_error, known_directory, stat_known};

/// Bytes of a change stamp: inode, size, modification time and change time.
const STAMP: usize = 32;

fn stamp(stat: &Stat) -> [u8; STAMP] {
    let nanoseconds =
        |seconds: i64, fraction: u64| (seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(fraction);
    let mut bytes = [0; STAMP];
    let words = [
        stat.st_ino,
        stat.st_size.unsigned_abs(),
        nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
    ];
    for (target, word) in bytes.chunks_exact_mut(8).zip(words) {
        target.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Writes the stamps of all entries, in the order of the record.
pub(crate) fn write(root: &impl AsFd, record: &File, seal: &Seal, file: &File) -> Result<()> {
    let mut cursor = Cursor::new(root).map_err(inspect_error(""))?;
    let mut writer = BufWriter::with_capacity(64 << 10, file);
    let writing = "writing change stamps";
    record::read(record, seal, |line| {
        let (parent, name) = split(line.path());
        let stat = stat_known(cursor.enter(parent, known_directory)?, line.path(), name)?;
        writer.write_all(&stamp(&stat)).context(writing)
    })?;
    writer.flush().context(writing)
}

/// Compares all entries of the record with their stamps. An added or removed entry changes the stamp of its directory. An error means that
/// something may have changed, and not that the content is wrong.
pub(crate) fn verify(root: &impl AsFd, record: &File, seal: &Seal, stamps: &File) -> Result<()> {
    let mut cursor = Cursor::new(root).map_err(inspect_error(""))?;
    let mut stamps = BufReader::with_capacity(64 << 10, stamps);
    record::read(record, seal, |line| {
        let mut expected = [0; STAMP];
        stamps.read_exact(&mut expected).context("reading change stamps")?;
        let path = line.path();
        let (parent, name) = split(path);
        let stat = stat_known(cursor.enter(parent, known_directory)?, path, name)?;
        if stamp(&stat) == expected {
            Ok(())
        } else {
            Err(altered(path, "has changed since it was extracted"))
        }
    })
}
