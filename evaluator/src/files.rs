//! Bounded reading of untrusted files.
//!
//! Messages start with the path of the file: `PATH: what is wrong`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use invarlock_error::{Context as _, Error, Foreign as _, Kind, Result, bail};

/// Opens a regular file and returns its size. Other files are rejected: a device or a pipe could block or never end.
pub fn open(path: &Path) -> Result<(File, u64)> {
    let failed = || format!("{}: cannot open the file", path.display());
    let metadata = std::fs::metadata(path).with_context(failed).kind(Kind::Input)?;
    if !metadata.is_file() {
        bail!(Input, "{}: not a regular file", path.display());
    }
    let file = File::open(path).with_context(failed).kind(Kind::Input)?;
    let size = file.metadata().with_context(failed).kind(Kind::Input)?.len();
    Ok((file, size))
}

/// Reads a whole file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, size) = open(path)?;
    let too_large = || Error::input(format!("{}: larger than {limit} bytes", path.display()));
    if size > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(|_| too_large())?);
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{}: cannot read the file", path.display()))
        .kind(Kind::Input)?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    reject_lfs_pointer(path, &bytes)?;
    Ok(bytes)
}

/// Rejects a file that starts as a Git LFS pointer does: a text file that stands for a large one until that is downloaded.
pub fn reject_lfs_pointer(path: &Path, start: &[u8]) -> Result<()> {
    match start.starts_with(b"version https://git-lfs") {
        true => Err(Error::input(format!(
            "{}: a Git LFS pointer, not the file itself: its content was not downloaded",
            path.display()
        ))
        .with_hint("run `git lfs pull` in the repository of the file")),
        false => Ok(()),
    }
}

/// Reads a whole file of UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read(path, limit)?)
        .err_kind(Kind::Input)
        .with_context(|| format!("{}: not UTF-8", path.display()))
}

/// Reads a whole file and parses it as JSON. `what` is the kind of document, for messages.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path, what: &str, limit: u64) -> Result<T> {
    let bytes = read(path, limit)?;
    serde_json::from_slice(&bytes)
        .err_kind(Kind::Input)
        .with_context(|| format!("{}: invalid {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_special_and_large_files() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(read(dir.path(), 10).is_err());
        assert!(read(Path::new("/dev/zero"), 10).is_err());
        let path = dir.path().join("f");
        std::fs::write(&path, "0123456789").expect("written");
        assert_eq!(read(&path, 10).expect("read"), b"0123456789");
        assert!(read(&path, 9).expect_err("too large").to_string().contains("larger than 9 bytes"));
    }
}
