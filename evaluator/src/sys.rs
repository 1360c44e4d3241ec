//! The one place that maps files into memory, and [`crates`], a section of the program.

pub mod crates;

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use invarlock_error::{Error, Result};

/// A file's bytes, read as they are needed.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a file that is not empty.
    pub fn new(file: &File, path: &Path) -> Result<Self> {
        // SAFETY: the map stays valid as long as nobody changes or truncates the file. Inputs are mounted read-only
        // into the container and nothing inside it can write them; the launcher hashed the same file before. Where
        // the user runs us without a container, a file cut short under us ends this process by a signal, which the
        // launcher reports; bytes that change give other numbers, which is what measuring a changing file means.
        let map = unsafe { memmap2::Mmap::map(file) };
        let map =
            map.map_err(|e| Error::system(format!("cannot map {} into memory: {e}", path.display())))?;
        Ok(Self(map))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
