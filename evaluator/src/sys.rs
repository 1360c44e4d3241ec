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

    /// Releases the resident pages of `part`, where it lies in this map. The next access reads the file again. This saves memory and changes no
    /// result, so a failure is ignored.
    pub fn release(&self, part: &[u8]) {
        let Some((start, length)) = self.locate(part) else { return };
        // SAFETY: the map is read-only and of a file, so pages that are read again have the bytes of the file; see `new`.
        let _ = unsafe { self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, length) };
    }

    /// Lets the kernel read `part` in the background, where it lies in this map. A failure is ignored: the access reads it.
    pub fn prefetch(&self, part: &[u8]) {
        let Some((start, length)) = self.locate(part) else { return };
        let _ = self.0.advise_range(memmap2::Advice::WillNeed, start, length);
    }

    /// Offset and length of `part` in this map.
    fn locate(&self, part: &[u8]) -> Option<(usize, usize)> {
        let start = part.as_ptr().addr().checked_sub(self.0.as_ptr().addr())?;
        (start < self.0.len() && part.len() <= self.0.len() - start).then_some((start, part.len()))
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
