//! The files of a pack in memory, within limits.

use invarlock_error::{Error, Result};
use std::collections::BTreeMap;

/// Largest file.
pub const FILE_LIMIT: u64 = 256 << 20;
/// All files together.
pub const PACK_LIMIT: u64 = 1 << 30;
/// The most files.
pub const MAX_FILES: usize = 4096;
/// The most directories above a file.
pub const MAX_DEPTH: usize = 8;
/// Longest path.
const MAX_PATH: usize = 255;

/// The files by their paths, which are relative, normal and separated by slashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackFiles {
    files: BTreeMap<String, Vec<u8>>,
    bytes: u64,
}

impl PackFiles {
    /// Adds a file.
    ///
    /// # Errors
    /// The path is not normal or exists, or a limit is exceeded.
    pub fn insert(&mut self, path: &str, bytes: Vec<u8>) -> Result<()> {
        check_path(path)?;
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.files.len() >= MAX_FILES {
            return Err(Error::input(format!("the pack has more than {MAX_FILES} files")));
        }
        if bytes.len() as u64 > FILE_LIMIT || self.bytes > PACK_LIMIT {
            return Err(Error::input(format!(
                "{path:?}: a file may have {} MiB, a pack {} MiB",
                FILE_LIMIT >> 20,
                PACK_LIMIT >> 20
            )));
        }
        match self.files.insert(path.to_owned(), bytes) {
            None => Ok(()),
            Some(_) => Err(Error::input(format!("{path:?} is in the pack twice"))),
        }
    }

    /// Bytes that may still be added.
    pub fn remaining(&self) -> u64 {
        PACK_LIMIT.saturating_sub(self.bytes).min(FILE_LIMIT)
    }

    /// The content of a file.
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    /// Every file, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// The number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// Refuses a path that leads out of the pack, or that two systems could read differently.
fn check_path(path: &str) -> Result<()> {
    let normal = |part: &str| !matches!(part, "" | "." | "..");
    let fits = path.len() <= MAX_PATH && path.split('/').count() <= MAX_DEPTH + 1;
    match fits && path.split('/').all(normal) && !path.chars().any(|c| c.is_control() || c == '\\') {
        true => Ok(()),
        false => Err(Error::input(format!("{path:?} is not a path that a pack may contain"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_normal_paths_are_accepted_once() {
        for path in
            ["", "/a", "a/", "a//b", ".", "a/..", "../a", "a\\b", "a\nb", "a\0", "1/2/3/4/5/6/7/8/9/a"]
        {
            assert!(PackFiles::default().insert(path, Vec::new()).is_err(), "{path:?}");
        }
        let mut files = PackFiles::default();
        files.insert("a/b.json", vec![1]).expect("a file");
        assert!(files.insert("a/b.json", vec![1]).is_err());
        assert_eq!(files.remaining(), FILE_LIMIT);
    }
}
