//! Opening and reading files that nobody vouches for, never more than a bound.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use invarlock_error::{Error, Result, bail};

/// Opens a regular file (a device or a pipe could block or never end) and tells its size.
pub fn open(path: &Path, what: &str) -> Result<(File, u64)> {
    let problem = |e: io::Error| Error::input(format!("cannot open {what} {}: {e}", path.display()));
    let kind = std::fs::metadata(path).map_err(problem)?;
    if !kind.is_file() {
        bail!(Input, "{what} {} is not a regular file", path.display());
    }
    let file = File::open(path).map_err(problem)?;
    let size = file.metadata().map_err(problem)?.len();
    Ok((file, size))
}

/// Reads a whole file of at most `limit` bytes.
pub fn read(path: &Path, what: &str, limit: u64) -> Result<Vec<u8>> {
    let (file, size) = open(path, what)?;
    let too_large = || Error::input(format!("{what} {} is larger than {limit} bytes", path.display()));
    if size > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(|_| too_large())?);
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::input(format!("cannot read {what} {}: {e}", path.display())))?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Reads a whole file and parses it as JSON.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path, what: &str, limit: u64) -> Result<T> {
    let bytes = read(path, what, limit)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::input(format!("{what} {} is not valid: {e}", path.display())))
}

/// Lines of a file, each of at most a bound.
#[derive(Debug)]
pub struct Lines {
    reader: BufReader<File>,
    limit: usize,
    buffer: Vec<u8>,
}

/// Why a line could not be had.
#[derive(Debug)]
pub enum LineError {
    /// It is longer than the bound.
    TooLong,
    /// Reading failed.
    Io(io::Error),
}

impl Lines {
    /// Lines of `file` of at most `limit` bytes each.
    pub fn new(file: File, limit: usize) -> Self {
        Self { reader: BufReader::with_capacity(1 << 16, file), limit, buffer: Vec::new() }
    }

    /// The next line without its end, or nothing at the end of the file.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, LineError> {
        self.buffer.clear();
        let bound = self.limit as u64 + 2;
        let read =
            self.reader.by_ref().take(bound).read_until(b'\n', &mut self.buffer).map_err(LineError::Io)?;
        if read == 0 {
            return Ok(None);
        }
        let mut line = self.buffer.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > self.limit { Err(LineError::TooLong) } else { Ok(Some(line)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, limit: usize) -> Vec<Option<String>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("f");
        std::fs::write(&path, text).expect("written");
        let mut lines = Lines::new(File::open(&path).expect("opened"), limit);
        let mut found = Vec::new();
        loop {
            match lines.next_line() {
                Ok(Some(line)) => found.push(Some(String::from_utf8_lossy(line).into_owned())),
                Ok(None) => return found,
                Err(_) => {
                    found.push(None);
                    return found;
                }
            }
        }
    }

    #[test]
    fn lines_end_with_or_without_a_newline() {
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(lines("ab\ncd\r\n\nef", 4), [some("ab"), some("cd"), some(""), some("ef")]);
        assert_eq!(lines("", 4), []);
        assert_eq!(lines("abcd\r\n", 4), [some("abcd")]);
        assert_eq!(lines("abcde\n", 4), [None]);
        assert_eq!(lines("abcdefghij", 4), [None]);
    }

    #[test]
    fn only_regular_files_within_their_bound_are_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(read(dir.path(), "file", 10).is_err());
        assert!(read(Path::new("/dev/zero"), "file", 10).is_err());
        let path = dir.path().join("f");
        std::fs::write(&path, "0123456789").expect("written");
        assert_eq!(read(&path, "file", 10).expect("read"), b"0123456789");
        assert!(read(&path, "file", 9).expect_err("too large").to_string().contains("larger than 9 bytes"));
    }
}
