//! The files that a run left in the directories of the host that it could write. The run has ended; other programs of the host can have
//! changed files too, which cannot be told apart.

use invarlock_evidence::format::plan::File as FileDigest;
use invarlock_evidence::numerics::digest::sha256_of;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use serde::Serialize;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most entries that are looked at.
const MAX_ENTRIES: usize = 200_000;
/// Most files that are hashed.
const MAX_FILES: usize = 1024;
/// Most bytes that are hashed.
const MAX_BYTES: u64 = 4 << 30;
/// Kernels take the times of files from a clock that is this much late at most.
const COARSE: Duration = Duration::from_millis(20);

/// The changed files of one directory, or one file.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ChangedFiles {
    /// The directory or file of the host.
    source: String,
    /// Its path in the container.
    target: String,
    /// The regular files that changed since the start of the run, with their SHA-256.
    files: Vec<FileDigest>,
    /// Whether these are all: every directory and file could be read, and no limit of the search was reached.
    complete: bool,
}

/// The time from which on a file has changed.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(COARSE)
}

impl ChangedFiles {
    /// Searches a directory or file. Links are not followed.
    pub fn search(source: &Path, target: &str, since: Duration) -> Self {
        let mut search = Search { since, entries: 0, bytes: 0, files: Vec::new(), complete: true };
        // A file is searched in its directory.
        let (root, name) = match source.is_dir() {
            true => (source, Path::new(".")),
            false => (source.parent().unwrap_or(source), Path::new(source.file_name().unwrap_or_default())),
        };
        match rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(root) if source.is_dir() => search.directories(&root, name),
            Ok(root) => search.file(&root, name),
            Err(_) => search.complete = false,
        }
        search.files.sort_by(|one, other| one.name.cmp(&other.name));
        ChangedFiles {
            source: source.display().to_string(),
            target: target.to_owned(),
            files: search.files,
            complete: search.complete,
        }
    }
}

struct Search {
    since: Duration,
    entries: usize,
    bytes: u64,
    files: Vec<FileDigest>,
    complete: bool,
}

impl Search {
    /// The directory and all below it.
    fn directories(&mut self, root: &OwnedFd, top: &Path) {
        let mut rest = vec![top.to_owned()];
        while let Some(below) = rest.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::openat2(root, &below, flags, Mode::empty(), inside());
            let Ok(entries) = opened.and_then(Dir::new) else {
                self.complete = false;
                continue;
            };
            for entry in entries.flatten() {
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                self.entries += 1;
                if self.entries > MAX_ENTRIES {
                    self.complete = false;
                    return;
                }
                let path = below.join(name);
                let Ok(stat) = rustix::fs::statat(root, &path, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => rest.push(path),
                    FileType::RegularFile => self.file(root, &path),
                    _ => {}
                }
            }
        }
    }

    /// Adds a file that has changed.
    fn file(&mut self, root: &OwnedFd, path: &Path) {
        let Ok(stat) = rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW) else { return };
        let seconds = Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(0));
        if seconds + Duration::from_nanos(stat.st_ctime_nsec) < self.since {
            return;
        }
        let left = MAX_BYTES.saturating_sub(self.bytes);
        match hash(root, path, left) {
            Some(digest) if self.files.len() < MAX_FILES => {
                self.bytes += digest.bytes;
                self.files.push(digest);
            }
            _ => self.complete = false,
        }
    }
}

fn hash(root: &OwnedFd, path: &Path, most: u64) -> Option<FileDigest> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat2(root, path, flags, Mode::empty(), inside()).ok()?);
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > most {
        return None;
    }
    // A file that grows meanwhile is not read for ever.
    let (sha256, bytes) = sha256_of(file.take(most)).ok()?;
    let name = path.strip_prefix(".").unwrap_or(path).to_string_lossy().into_owned();
    Some(FileDigest { name, sha256, bytes })
}

fn inside() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS
}

#[cfg(test)]
mod tests {
    use super::{ChangedFiles, now};
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    #[test]
    fn only_files_that_changed_are_listed_and_no_link_is_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        fs::write(at("old"), "old").expect("a file");
        std::thread::sleep(Duration::from_millis(60));
        let since = now();
        std::thread::sleep(Duration::from_millis(60));
        fs::create_dir(at("below")).expect("a directory");
        fs::write(at("below/new"), "abc").expect("a file");
        symlink("/etc/passwd", at("link")).expect("a link");
        symlink("/etc", at("etc")).expect("a link");
        let changed = ChangedFiles::search(directory.path(), "/out", since);
        let names: Vec<_> = changed.files.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
        assert_eq!((names, changed.complete), (vec![("below/new", 3)], true));
        assert!(changed.files[0].sha256.starts_with("ba7816bf"));
        let one = ChangedFiles::search(&at("below/new"), "/file", since);
        assert_eq!((one.files.len(), one.files[0].name.as_str()), (1, "new"));
        assert!(
            ChangedFiles::search(&at("below/new"), "/file", now() + Duration::from_secs(9)).files.is_empty()
        );
        assert!(!ChangedFiles::search(&at("gone/file"), "/file", since).complete);
    }
}
