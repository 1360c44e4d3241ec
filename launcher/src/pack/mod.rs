//! Evidence packs on disk: a directory or an archive.

mod directory;
mod reports;

pub use directory::write as write_directory;
pub use reports::{ReportOptions, collect, object, verify};

use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::write_output;
use invarlock_evidence::pack::archive::{self, ARCHIVE_LIMIT};
use invarlock_evidence::pack::{PackFiles, Refusal, Stage};
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

/// How files of a pack are opened: no symbolic link, and a named pipe does not block.
const OPEN: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Reads a pack into memory. Every check is made on these bytes.
pub fn read(path: &Path) -> Result<PackFiles, Refusal> {
    let opened = openat(CWD, path, OPEN, Mode::empty());
    let file = opened.map(File::from).map_err(|errno| match errno {
        Errno::NOENT => Refusal::new(Stage::Missing, format!("the pack {} does not exist", path.display())),
        Errno::LOOP => Refusal::new(
            Stage::Format,
            format!("the pack {} is a symbolic link; pass the pack itself", path.display()),
        ),
        errno => Refusal::new(Stage::Missing, format!("opening the pack {}: {errno}", path.display())),
    })?;
    let content = match file_type(&file) {
        Ok(FileType::Directory) => directory::read(&file),
        Ok(FileType::RegularFile) => archive::read(BufReader::new(file.take(ARCHIVE_LIMIT))),
        Ok(_) => Err(Error::input("it is neither a directory nor a regular file")),
        Err(error) => Err(error),
    };
    content
        .map_err(|error| Refusal::new(Stage::Format, format!("reading the pack {}: {error}", path.display())))
}

fn file_type(file: &File) -> Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode))
}

/// Writes a pack as an archive. The file must not exist.
pub fn write_archive(path: &Path, files: &PackFiles) -> Result<()> {
    let mut bytes = Vec::new();
    archive::write(files, &mut bytes).with_context(|| format!("writing {}", path.display()))?;
    write_output(path, &bytes, false)
}
