//! `checksums.sha256`: a line for each file, as `sha256sum` writes and checks them.

use super::{CHECKSUMS, PackFiles};
use crate::numerics::digest::sha256_hex;
use invarlock_error::{Error, Result};
use std::collections::BTreeMap;

/// Largest checksum file: a line for each file.
const LIMIT: usize = 4 << 20;

/// The checksums of files.
pub(super) fn write(files: &PackFiles) -> String {
    files.iter().map(|(path, bytes)| format!("{}  {path}\n", sha256_hex(bytes))).collect()
}

/// The digests by path, in any order of the lines.
///
/// # Errors
/// A line has another form, or a path is in it twice.
pub(super) fn parse(bytes: &[u8]) -> Result<BTreeMap<&str, &str>> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= LIMIT);
    let text = text.ok_or_else(|| Error::input(format!("{CHECKSUMS} is not UTF-8, or too large")))?;
    let mut digests = BTreeMap::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let wrong = || Error::input(format!("{CHECKSUMS}: line {} is not a checksum", index + 1));
        let (digest, path) =
            line.strip_suffix('\n').and_then(|line| line.split_once("  ")).ok_or_else(wrong)?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digest.len() != 64 || !digest.bytes().all(hex) || path.is_empty() {
            return Err(wrong());
        }
        if digests.insert(path, digest).is_some() {
            return Err(Error::input(format!("{CHECKSUMS} has {path:?} twice")));
        }
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_sha256sum_are_read() {
        let digest = "0".repeat(64);
        assert_eq!(parse(format!("{digest}  a\n{digest}  b c\n").as_bytes()).expect("digests").len(), 2);
        for wrong in [
            format!("{digest}  a"),
            format!("{digest} *a\n"),
            format!("{}  a\n", "A".repeat(64)),
            format!("{digest}  \n"),
            format!("{digest}  a\n\n"),
            format!("{digest}  a\n{digest}  a\n"),
        ] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
