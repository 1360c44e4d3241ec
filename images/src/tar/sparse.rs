//! Sparse files, in the four formats of GNU tar.
//!
//! In every format, extents must be in ascending order, end within the file and account for every stored byte.

use std::io::Read;

use super::header::{BLOCK, Header, number};
use super::{decimal, read_error};
use crate::{Error, Result};

/// Most extents of a file.
const MAX_EXTENTS: usize = 1 << 16;

/// A stored part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub offset: u64,
    pub length: u64,
}

/// The PAX records of a sparse file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Records {
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    major: Option<u64>,
    minor: Option<u64>,
    count: Option<u64>,
    extents: Vec<Extent>,
    /// The offset of an extent whose length is in the next record.
    offset: Option<u64>,
    map: bool,
}

impl Records {
    /// Adds the record `GNU.sparse.KEY=VALUE`.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let count = || decimal(value).ok_or_else(malformed);
        let slot = match key {
            b"major" => &mut self.major,
            b"minor" => &mut self.minor,
            b"size" | b"realsize" => &mut self.size,
            b"numblocks" => &mut self.count,
            b"name" => return super::set(&mut self.name, value.to_vec()),
            b"offset" => return super::set(&mut self.offset, count()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or_else(malformed)?;
                return push(&mut self.extents, offset, count()?);
            }
            b"map" => return self.map(value),
            _ => return Err(malformed()),
        };
        super::set(slot, count()?)
    }

    /// Version 0.1 has all extents in one record.
    fn map(&mut self, value: &[u8]) -> Result<()> {
        if std::mem::replace(&mut self.map, true) || !self.extents.is_empty() {
            return Err(malformed());
        }
        let numbers: Vec<u64> = value
            .split(|byte| *byte == b',')
            .map(|it| decimal(it).ok_or_else(malformed))
            .collect::<Result<_>>()?;
        if !numbers.len().is_multiple_of(2) {
            return Err(malformed());
        }
        numbers.chunks_exact(2).try_for_each(|it| push(&mut self.extents, it[0], it[1]))
    }

    /// The extents and the size of a sparse file, or `None` if there are no such records. `stored` is the number of stored bytes. A map that
    /// precedes the content is read from `content` and subtracted from `stored`.
    pub fn finish(&mut self, stored: &mut u64, content: &mut dyn Read) -> Result<Option<(Vec<Extent>, u64)>> {
        if *self == Self::default() {
            return Ok(None);
        }
        match (self.major, self.minor) {
            (None, None) | (Some(0), Some(0 | 1)) => {
                if self.offset.is_some() || self.count != Some(self.extents.len() as u64) {
                    return Err(malformed());
                }
            }
            (Some(1), Some(0)) if self.extents.is_empty() && self.count.is_none() => {
                self.extents = leading_map(stored, content)?;
            }
            _ => return Err(Error::unsupported("a sparse file of an unknown format version")),
        }
        let size = self.size.ok_or_else(malformed)?;
        checked(std::mem::take(&mut self.extents), size, *stored).map(|extents| Some((extents, size)))
    }
}

/// Version 1.0: decimal numbers, one per line, padded to whole blocks.
fn leading_map(stored: &mut u64, content: &mut dyn Read) -> Result<Vec<Extent>> {
    let (mut block, mut used) = ([0; BLOCK], BLOCK);
    let mut next = || -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            if used == BLOCK {
                *stored = stored.checked_sub(BLOCK as u64).ok_or_else(malformed)?;
                content.read_exact(&mut block).map_err(read_error)?;
                used = 0;
            }
            let byte = block[used];
            used += 1;
            match byte {
                b'\n' => return decimal(&digits).ok_or_else(malformed),
                _ if digits.len() < 20 => digits.push(byte),
                _ => return Err(malformed()),
            }
        }
    };
    let count = next()?;
    let mut extents = Vec::new();
    for _ in 0..count {
        let (offset, length) = (next()?, next()?);
        push(&mut extents, offset, length)?;
    }
    Ok(extents)
}

/// The old format, type `S`: four extents in the header, and blocks with more of them before the content.
pub(super) fn read_old_map(
    header: &Header,
    stored: u64,
    mut reader: impl Read,
) -> Result<(Vec<Extent>, u64)> {
    let mut extents = Vec::new();
    // A map ends with the first empty field.
    let mut add = |fields: &[u8]| -> Result<bool> {
        for field in fields.chunks_exact(24) {
            if field[0] == 0 {
                return Ok(false);
            }
            let (offset, length) = (number(&field[..12]), number(&field[12..]));
            push(&mut extents, offset.ok_or_else(malformed)?, length.ok_or_else(malformed)?)?;
        }
        Ok(true)
    };
    let mut full = add(header.bytes(386..482))?;
    let mut more = flag(header.bytes(482..483)[0])?;
    while more {
        let mut block = [0; BLOCK];
        reader.read_exact(&mut block).map_err(read_error)?;
        if !full {
            return Err(malformed());
        }
        full = add(&block[..504])?;
        more = flag(block[504])?;
    }
    let size = number(header.bytes(483..495)).ok_or_else(malformed)?;
    checked(extents, size, stored).map(|extents| (extents, size))
}

fn flag(byte: u8) -> Result<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(malformed()),
    }
}

fn push(extents: &mut Vec<Extent>, offset: u64, length: u64) -> Result<()> {
    if extents.len() >= MAX_EXTENTS {
        return Err(Error::safety(format!("a sparse file of more than {MAX_EXTENTS} extents")));
    }
    extents.push(Extent { offset, length });
    Ok(())
}

fn checked(extents: Vec<Extent>, size: u64, stored: u64) -> Result<Vec<Extent>> {
    let (mut end, mut sum) = (0u64, 0u64);
    for extent in &extents {
        if extent.offset < end {
            return Err(malformed());
        }
        end = extent.offset.checked_add(extent.length).filter(|end| *end <= size).ok_or_else(malformed)?;
        // This cannot overflow: extents do not overlap.
        sum += extent.length;
    }
    match sum == stored {
        true => Ok(extents),
        false => Err(malformed()),
    }
}

fn malformed() -> Error {
    Error::safety("a sparse file with an inconsistent map")
}
