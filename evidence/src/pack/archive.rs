//! A pack as one file: a tar archive with exactly one form.
//!
//! The members are the files sorted by path, as POSIX ustar, with mode 0644, owner 0 and time 0. The reader accepts no other bytes than the
//! writer gives: no other type of member, no extension, no directory.

use super::PackFiles;
use super::files::{MAX_FILES, PACK_LIMIT};
use invarlock_error::{Context as _, Error, Result};
use std::io::{ErrorKind, Read, Write};

const BLOCK: usize = 512;
/// Largest archive: the files, and a header and padding for each.
pub const ARCHIVE_LIMIT: u64 = PACK_LIMIT + (MAX_FILES as u64 + 1) * 2 * BLOCK as u64;

/// Writes the archive.
///
/// # Errors
/// A path is too long for ustar, or the output fails.
pub fn write(files: &PackFiles, mut out: impl Write) -> Result<()> {
    for (path, bytes) in files.iter() {
        out.write_all(&header(path, bytes.len())?)?;
        out.write_all(bytes)?;
        out.write_all(&[0; BLOCK][..padding(bytes.len())])?;
    }
    Ok(out.write_all(&[0; 2 * BLOCK])?)
}

/// Reads an archive.
///
/// # Errors
/// The bytes are not what [`write()`] gives for a pack, or a limit is exceeded.
pub fn read(mut archive: impl Read) -> Result<PackFiles> {
    let mut files = PackFiles::default();
    let mut last = String::new();
    loop {
        let block = block(&mut archive)?;
        if block == [0; BLOCK] {
            break;
        }
        let (path, size) = member(&block)?;
        if header(&path, size)? != block {
            return Err(other_form(format_args!("the header of {path:?}")));
        }
        if path <= last {
            return Err(other_form(format_args!("the order of {path:?}")));
        }
        if size as u64 > files.remaining() {
            return Err(Error::input(format!("{path:?} is too large for a pack: {size} bytes")));
        }
        let mut bytes = Vec::new();
        archive.by_ref().take(size as u64).read_to_end(&mut bytes).context("reading the archive")?;
        let mut rest = [0; BLOCK];
        archive.read_exact(&mut rest[..padding(size)]).map_err(truncated)?;
        if bytes.len() != size || rest != [0; BLOCK] {
            return Err(other_form(format_args!("the end of {path:?}")));
        }
        files.insert(&path, bytes)?;
        last = path;
    }
    let mut end = Vec::new();
    archive.take(BLOCK as u64 + 1).read_to_end(&mut end).context("reading the archive")?;
    match end == [0; BLOCK] {
        true => Ok(files),
        false => Err(other_form("its end")),
    }
}

fn block(archive: &mut impl Read) -> Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    archive.read_exact(&mut block).map_err(truncated)?;
    Ok(block)
}

fn truncated(why: std::io::Error) -> Error {
    match why.kind() {
        ErrorKind::UnexpectedEof => Error::input("the archive is truncated"),
        _ => Error::from(why).context("reading the archive"),
    }
}

fn other_form(what: impl std::fmt::Display) -> Error {
    Error::input(format!("the archive is not written as this program writes it: {what} differs"))
        .with_hint("extract it with tar, and pass the directory")
}

/// Path and size that a header states.
fn member(block: &[u8; BLOCK]) -> Result<(String, usize)> {
    let text = |range: std::ops::Range<usize>| {
        let field = &block[range];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        std::str::from_utf8(&field[..end]).map_err(|_| other_form("a path that is not UTF-8"))
    };
    let (name, prefix) = (text(0..100)?, text(345..500)?);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
    let size = usize::from_str_radix(text(124..136)?, 8).map_err(|_| other_form("a size"))?;
    Ok((path, size))
}

/// The header of a member.
fn header(path: &str, size: usize) -> Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let (prefix, name) = split(path)?;
    let size = format!("{size:011o}");
    if size.len() > 11 {
        return Err(Error::input(format!("{path:?} is too large for an archive")));
    }
    let fields: [(usize, &[u8]); 11] = [
        (0, name.as_bytes()),
        (100, b"0000644"),
        (108, b"0000000"),
        (116, b"0000000"),
        (124, size.as_bytes()),
        (136, b"00000000000"),
        (148, b"        "),
        (156, b"0"),
        (257, b"ustar\x0000"),
        (329, b"0000000\x000000000"),
        (345, prefix.as_bytes()),
    ];
    for (at, bytes) in fields {
        block[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// A path as ustar's prefix and name.
fn split(path: &str) -> Result<(&str, &str)> {
    if path.len() <= 100 {
        return Ok(("", path));
    }
    let fits = |at: &usize| *at <= 155 && path.len() - at - 1 <= 100;
    let at = path.match_indices('/').map(|(at, _)| at).find(fits);
    at.map(|at| (&path[..at], &path[at + 1..]))
        .ok_or_else(|| Error::input(format!("{path:?} is too long for an archive")))
}

fn padding(size: usize) -> usize {
    size.next_multiple_of(BLOCK) - size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> PackFiles {
        let mut files = PackFiles::default();
        files.insert("manifest.json", b"{}\n".to_vec()).expect("a file");
        let long = format!("reports/{}/evaluation.report.json", "r".repeat(120));
        files.insert(&long, vec![b'x'; BLOCK]).expect("a file");
        files.insert("results/empty", Vec::new()).expect("a file");
        files
    }

    fn bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&files(), &mut bytes).expect("an archive");
        bytes
    }

    #[test]
    fn an_archive_is_read_as_it_was_written_by_this_and_another_reader() {
        assert_eq!(read(&bytes()[..]).expect("the files"), files());
        let mut other = tar::Archive::new(std::io::Cursor::new(bytes()));
        let members: Vec<(String, u64)> = other
            .entries()
            .expect("entries")
            .map(|entry| entry.expect("an entry"))
            .map(|entry| (entry.path().expect("a path").display().to_string(), entry.size()))
            .collect();
        let expected: Vec<(String, u64)> =
            files().iter().map(|(path, bytes)| (path.to_owned(), bytes.len() as u64)).collect();
        assert_eq!(members, expected);
    }

    #[test]
    fn every_flipped_bit_is_refused_or_changes_a_file() {
        let good = bytes();
        for bit in 0..good.len() * 8 {
            let mut changed = good.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(read(&changed[..]).ok(), Some(files()), "bit {bit}");
        }
    }

    #[test]
    fn truncated_and_extended_archives_are_refused() {
        let good = bytes();
        for end in 0..good.len() {
            assert!(read(&good[..end]).is_err(), "{end} bytes");
        }
        assert!(read(&[&good[..], &[0]].concat()[..]).is_err());
    }
}
