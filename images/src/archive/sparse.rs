//! Files with holes, in the four ways GNU tar writes them.
//!
//! However the map is written, it must rise, end within the file, and account for every stored byte.

use std::io::Read;

use super::block::{BLOCK, Header, number};
use super::{damaged, decimal};
use crate::{Error, Result};

/// More pieces than this are no file but an attack.
const MOST_PIECES: usize = 1 << 16;

/// A piece of a file that is stored: where it lies in the file, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub at: u64,
    pub length: u64,
}

/// What PAX records say about holes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Records {
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    major: Option<u64>,
    minor: Option<u64>,
    count: Option<u64>,
    pieces: Vec<Piece>,
    /// The offset of a piece whose length comes next.
    offset: Option<u64>,
    map: bool,
}

impl Records {
    /// Takes in the record `GNU.sparse.KEY=VALUE`.
    pub fn take_in(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let count = || decimal(value).ok_or_else(wrong);
        let slot = match key {
            b"major" => &mut self.major,
            b"minor" => &mut self.minor,
            b"size" | b"realsize" => &mut self.size,
            b"numblocks" => &mut self.count,
            b"name" => return super::set(&mut self.name, value.to_vec()),
            b"offset" => return super::set(&mut self.offset, count()?),
            b"numbytes" => {
                let at = self.offset.take().ok_or_else(wrong)?;
                return push(&mut self.pieces, at, count()?);
            }
            b"map" => return self.map(value),
            _ => return Err(wrong()),
        };
        super::set(slot, count()?)
    }

    /// Version 0.1 has all pieces in one record.
    fn map(&mut self, value: &[u8]) -> Result<()> {
        if std::mem::replace(&mut self.map, true) || !self.pieces.is_empty() {
            return Err(wrong());
        }
        let numbers: Vec<u64> = value
            .split(|byte| *byte == b',')
            .map(|it| decimal(it).ok_or_else(wrong))
            .collect::<Result<_>>()?;
        if !numbers.len().is_multiple_of(2) {
            return Err(wrong());
        }
        numbers.chunks_exact(2).try_for_each(|it| push(&mut self.pieces, it[0], it[1]))
    }

    /// The pieces and the file's size, where the records speak of a file with holes. `stored` is what the archive has of it; where
    /// the map stands before the content, that is read from `content` and taken off.
    pub fn finish(&mut self, stored: &mut u64, content: &mut dyn Read) -> Result<Option<(Vec<Piece>, u64)>> {
        if *self == Self::default() {
            return Ok(None);
        }
        match (self.major, self.minor) {
            (None, None) | (Some(0), Some(0 | 1)) => {
                if self.offset.is_some() || self.count != Some(self.pieces.len() as u64) {
                    return Err(wrong());
                }
            }
            (Some(1), Some(0)) if self.pieces.is_empty() && self.count.is_none() => {
                self.pieces = leading_map(stored, content)?;
            }
            _ => return Err(Error::unsupported("a sparse file of an unknown version")),
        }
        let size = self.size.ok_or_else(wrong)?;
        checked(std::mem::take(&mut self.pieces), size, *stored).map(|pieces| Some((pieces, size)))
    }
}

/// Version 1.0: decimal numbers, a line each, filled up to whole blocks.
fn leading_map(stored: &mut u64, content: &mut dyn Read) -> Result<Vec<Piece>> {
    let (mut block, mut used) = ([0; BLOCK], BLOCK);
    let mut next = || -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            if used == BLOCK {
                *stored = stored.checked_sub(BLOCK as u64).ok_or_else(wrong)?;
                content.read_exact(&mut block).map_err(damaged)?;
                used = 0;
            }
            let byte = block[used];
            used += 1;
            match byte {
                b'\n' => return decimal(&digits).ok_or_else(wrong),
                _ if digits.len() < 20 => digits.push(byte),
                _ => return Err(wrong()),
            }
        }
    };
    let count = next()?;
    let mut pieces = Vec::new();
    for _ in 0..count {
        let (at, length) = (next()?, next()?);
        push(&mut pieces, at, length)?;
    }
    Ok(pieces)
}

/// The old way, of type `S`: four pieces in the header, and blocks of further ones between it and the content.
pub(super) fn old(header: &Header, stored: u64, mut reader: impl Read) -> Result<(Vec<Piece>, u64)> {
    let mut pieces = Vec::new();
    // A map ends with the first field that is empty.
    let mut take = |fields: &[u8]| -> Result<bool> {
        for field in fields.chunks_exact(24) {
            if field[0] == 0 {
                return Ok(false);
            }
            let (at, length) = (number(&field[..12]), number(&field[12..]));
            push(&mut pieces, at.ok_or_else(wrong)?, length.ok_or_else(wrong)?)?;
        }
        Ok(true)
    };
    let mut full = take(header.bytes(386..482))?;
    let mut more = flag(header.bytes(482..483)[0])?;
    while more {
        let mut block = [0; BLOCK];
        reader.read_exact(&mut block).map_err(damaged)?;
        if !full {
            return Err(wrong());
        }
        full = take(&block[..504])?;
        more = flag(block[504])?;
    }
    let size = number(header.bytes(483..495)).ok_or_else(wrong)?;
    checked(pieces, size, stored).map(|pieces| (pieces, size))
}

fn flag(byte: u8) -> Result<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(wrong()),
    }
}

fn push(pieces: &mut Vec<Piece>, at: u64, length: u64) -> Result<()> {
    if pieces.len() >= MOST_PIECES {
        return Err(Error::safety(format!("a sparse file of more than {MOST_PIECES} pieces")));
    }
    pieces.push(Piece { at, length });
    Ok(())
}

fn checked(pieces: Vec<Piece>, size: u64, stored: u64) -> Result<Vec<Piece>> {
    let (mut end, mut sum) = (0u64, 0u64);
    for piece in &pieces {
        if piece.at < end {
            return Err(wrong());
        }
        end = piece.at.checked_add(piece.length).filter(|end| *end <= size).ok_or_else(wrong)?;
        // No overflow: the pieces do not overlap.
        sum += piece.length;
    }
    match sum == stored {
        true => Ok(pieces),
        false => Err(wrong()),
    }
}

fn wrong() -> Error {
    Error::safety("a sparse file whose map is contradictory")
}
