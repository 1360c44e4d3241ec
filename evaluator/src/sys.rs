//! Memory-mapped files, and [`crates`], a section of the executable.
#![allow(unsafe_code, reason = "memory mapping and raw system calls")]

pub mod crates;

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use invarlock_error::{Context as _, Result};

/// The bytes of a file, mapped into memory.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a file, which must not be empty. `path` is for messages.
    pub fn new(file: &File, path: &Path) -> Result<Self> {
        // SAFETY: the map is valid as long as no process changes or truncates the file. Inputs are mounted read-only
        // into the container, no process in it can write them, and the launcher has hashed the same file. Without a
        // container, truncation ends this process by a signal, which the launcher reports; changed bytes change the
        // measured numbers.
        let map = unsafe { memmap2::Mmap::map(file) };
        Ok(Self(map.with_context(|| format!("{}: cannot map the file into memory", path.display()))?))
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
