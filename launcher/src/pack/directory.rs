//! A pack as a directory. It is read below one handle: no path of a pack is joined, and no symbolic link is followed.

use super::{OPEN, file_type};
use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::check_writable;
use invarlock_evidence::pack::{MAX_DEPTH, MAX_FILES, PackFiles};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, RenameFlags, openat, renameat_with};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Reads every file.
pub(super) fn read(root: &File) -> Result<PackFiles> {
    let mut files = PackFiles::default();
    let mut directories = 0;
    read_below(root, "", 0, &mut directories, &mut files)?;
    Ok(files)
}

fn read_below(
    directory: &File,
    above: &str,
    depth: usize,
    directories: &mut usize,
    files: &mut PackFiles,
) -> Result<()> {
    *directories += 1;
    if depth > MAX_DEPTH || *directories > MAX_FILES {
        return Err(Error::input(format!("the pack has too many directories, at {above:?}")));
    }
    for entry in Dir::read_from(directory).with_context(|| format!("listing {above:?}"))? {
        let entry = entry.with_context(|| format!("listing {above:?}"))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let shown =
            name.to_str().map_err(|_| Error::input(format!("the file name {name:?} is not UTF-8")))?;
        let path = format!("{above}{shown}");
        let opened = openat(directory, name, OPEN, Mode::empty()).map(File::from);
        let file =
            opened.map_err(|errno| Error::input(format!("{path:?} is no file that can be read: {errno}")))?;
        match file_type(&file)? {
            FileType::Directory => read_below(&file, &format!("{path}/"), depth + 1, directories, files)?,
            FileType::RegularFile => {
                let mut bytes = Vec::new();
                let limited = file.take(files.remaining() + 1).read_to_end(&mut bytes);
                limited.with_context(|| format!("reading {path:?}"))?;
                files.insert(&path, bytes)?;
            }
            _ => return Err(Error::input(format!("{path:?} is neither a file nor a directory"))),
        }
    }
    Ok(())
}

/// Writes a pack that was built here as a new directory, completely or not at all.
pub fn write(target: &Path, files: &PackFiles) -> Result<()> {
    check_writable("OUT", target)?;
    let writing = || format!("writing the pack {}", target.display());
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(parent).with_context(writing)?;
    let staged =
        tempfile::Builder::new().prefix(".invarlock-pack-").tempdir_in(parent).with_context(writing)?;
    // The directory of a pack is private until it has its name.
    let root = staged.path().join("pack");
    std::fs::create_dir(&root).with_context(writing)?;
    for (path, bytes) in files.iter() {
        let path = root.join(path);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).with_context(writing)?;
        }
        let mut file = File::options().write(true).create_new(true).open(&path).with_context(writing)?;
        std::io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all()).with_context(writing)?;
    }
    renameat_with(CWD, &root, CWD, target, RenameFlags::NOREPLACE).with_context(writing)?;
    let synced = openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    synced.and_then(|directory| rustix::fs::fsync(&directory)).with_context(writing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_pack_is_read_and_links_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut files = PackFiles::default();
        files.insert("a/b/c.json", b"{}".to_vec()).expect("a file");
        files.insert("d", Vec::new()).expect("a file");
        let target = dir.path().join("pack");
        write(&target, &files).expect("written");
        assert!(write(&target, &files).is_err(), "it exists");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 1, "nothing else is left");
        assert_eq!(super::super::read(&target).expect("the pack"), files);
        for (name, to) in [("file-link", "d"), ("directory-link", "a"), ("dangling", "none")] {
            std::os::unix::fs::symlink(to, target.join(name)).expect("a link");
            let refused = super::super::read(&target).expect_err(name);
            assert!(refused.errors[0].contains(name), "{refused:?}");
            std::fs::remove_file(target.join(name)).expect("removed");
        }
        std::os::unix::fs::symlink(&target, dir.path().join("link")).expect("a link");
        assert!(super::super::read(&dir.path().join("link")).is_err());
    }
}
