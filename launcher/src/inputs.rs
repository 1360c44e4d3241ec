//! Inputs of a run. Every needed file of a checkpoint or dataset is opened once and hashed through that handle; the same handle is mounted
//! into the container.
//!
//! Those of a checkpoint are opened in `checkpoint_files`.

use crate::dataset_files::name_inside;
use crate::error::{Context as _, Error, Kind, Result};
use crate::signals::Signals;
use crate::ui::Ui;
use invarlock_evidence::format::plan::{File as FileDigest, Files};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

const HASH_BLOCK: usize = 1 << 20;

/// One opened file.
#[derive(Debug)]
pub struct InputFile {
    /// Name in the checkpoint or dataset directory of the container.
    pub name: String,
    /// Its path on the host, links resolved.
    pub path: PathBuf,
    /// The handle that is hashed and mounted.
    pub file: File,
    /// Size in bytes when opened.
    pub bytes: u64,
    /// Its metadata when it was opened.
    stamps: ChangeStamps,
}

/// Identity and times of a file. Its owner cannot set back the change time.
#[derive(Debug, PartialEq, Eq)]
struct ChangeStamps {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl ChangeStamps {
    fn of(metadata: &std::fs::Metadata) -> Self {
        ChangeStamps {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl InputFile {
    /// Fails when the opened file has changed, or when its path names another file.
    pub fn check_unchanged(&self) -> Result<()> {
        let doing = || format!("reading the metadata of {}", self.path.display());
        let opened = self.file.metadata().with_context(doing)?;
        let named = match std::fs::symlink_metadata(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            other => Some(other.with_context(doing)?),
        };
        let same = |metadata: &std::fs::Metadata| ChangeStamps::of(metadata) == self.stamps;
        if same(&opened) && named.as_ref().is_some_and(same) {
            return Ok(());
        }
        let path = self.path.display();
        Err(Error::integrity(format!("input {path}: the file was changed or replaced while it was in use")))
            .hint("stop the process that writes the file, and run again")
    }
}

/// Opens the dataset files; in the container they are named by number and format: `0.jsonl`, `1.jsonl`, … `preset` is the preset that names them.
pub fn open_dataset(paths: &[PathBuf], preset: Option<&Path>) -> Result<Vec<InputFile>> {
    let open = |(i, path): (usize, &PathBuf)| {
        let failed = |e: std::io::Error| {
            let error = not_opened(&format!("dataset file {}", path.display()), &e);
            match preset.filter(|_| e.kind() == std::io::ErrorKind::NotFound && path.is_relative()) {
                Some(preset) => error.without_hint().with_hint(tried(path, preset)),
                None => error,
            }
        };
        let real = std::fs::canonicalize(path).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = openat2(CWD, &real, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .map_err(|e| failed(e.into()))?;
        if real.is_dir() {
            let path = path.display();
            return Err(Error::input(format!("opening dataset file {path}: it is a directory")))
                .hint(format!("pass one file, or use a preset with `path: {path}`"));
        }
        regular(format!("dataset file {}", path.display()), name_inside(i, path), real, fd)
    };
    paths.iter().enumerate().map(open).collect()
}

/// A path that the file `names_it` contains: a relative one is looked up in the current directory, then next to that file.
pub fn here_or_beside(path: &Path, names_it: &Path) -> PathBuf {
    let beside = names_it.parent().unwrap_or_else(|| Path::new("")).join(path);
    if path.is_absolute() || path.exists() || !beside.exists() { path.to_path_buf() } else { beside }
}

/// Opens a regular file whose path has no links; `name` is its name in the container.
pub fn open_real(what: &str, real: &Path, name: String) -> Result<InputFile> {
    let what = format!("{what} {}", real.display());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = openat2(CWD, real, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .map_err(|errno| not_opened(&what, &errno.into()))?;
    regular(what, name, real.to_owned(), fd)
}

/// The places where a relative dataset file of a preset was looked up.
pub fn tried(path: &Path, preset: &Path) -> String {
    let absolute = |dir: &Path| {
        let path = dir.join(path);
        std::path::absolute(&path).unwrap_or(path).display().to_string()
    };
    let (here, beside) =
        (absolute(Path::new("")), absolute(preset.parent().unwrap_or_else(|| Path::new(""))));
    match here == beside {
        true => format!("put the file where it was looked up, or name its path in the preset: {here}"),
        false => format!(
            "put the file where it was looked up, or name its path in the preset: {here} (current directory), {beside} (next to the preset)"
        ),
    }
}

/// The error for a file that the user named and that cannot be opened.
pub fn not_opened(what: &str, error: &std::io::Error) -> Error {
    Error::input(format!("opening {what}: {error}")).with_hint(path_hint(error.kind()))
}

/// The error for a file that the user named and that cannot be read.
pub fn not_read(why: &std::io::Error) -> Error {
    let error = Error::input(why.to_string());
    match why.kind() {
        kind @ (std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => {
            error.with_hint(path_hint(kind))
        }
        _ => error,
    }
}

fn path_hint(kind: std::io::ErrorKind) -> String {
    match (kind, std::env::current_dir()) {
        (std::io::ErrorKind::PermissionDenied, _) => "the file must be readable by you".to_owned(),
        (_, Ok(dir)) => {
            format!("check the path; a relative path starts at the current directory {}", dir.display())
        }
        (_, Err(_)) => "check the path".to_owned(),
    }
}

/// Reads a small regular file, which may be a link; `what` names it in errors.
pub fn read_small(what: &str, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| not_opened(what, &e);
    let real = std::fs::canonicalize(path).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd =
        openat2(CWD, &real, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(|e| failed(e.into()))?;
    let input = regular(what.to_owned(), String::new(), real, fd)?;
    let mut bytes = Vec::new();
    input.file.take(limit + 1).read_to_end(&mut bytes).with_context(|| format!("reading {what}"))?;
    match bytes.len() as u64 > limit {
        true => Err(Error::input(format!("reading {what}: larger than {limit} bytes"))),
        false => Ok(bytes),
    }
}

/// Hashes every file through its handle, one thread per file up to the number of cores.
pub fn digest(ui: &Ui, signals: &Signals, label: &str, path: &Path, files: &[InputFile]) -> Result<Files> {
    let step = ui.step(&format!("hashing {label}"), files.iter().map(|f| f.bytes).sum(), true);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(files.len().max(1));
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(file) = files.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            done.push(hash(file, signals, &|n| step.add(n))?);
        }
        Ok::<_, Error>(done)
    };
    let results: Vec<Result<Vec<FileDigest>>> = std::thread::scope(|scope| {
        let thread = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..workers).map_while(thread).collect();
        // This thread hashes too, so hashing works even when no thread can be started.
        let own = work();
        let panicked = || Err(Error::system("a hashing thread panicked"));
        let others = others.into_iter().map(|h| h.join().unwrap_or_else(|_| panicked()));
        std::iter::once(own).chain(others).collect()
    });
    let mut digests = Vec::new();
    for result in results {
        digests.extend(result?);
    }
    step.done(&format!("{} files", digests.len()));
    Ok(Files::new(path.to_string_lossy().into_owned(), digests))
}

fn hash(input: &InputFile, signals: &Signals, progress: &dyn Fn(u64)) -> Result<FileDigest> {
    let doing = || format!("hashing {}", input.path.display());
    let (mut hasher, mut block, mut offset) = (Sha256::new(), vec![0u8; HASH_BLOCK], 0u64);
    loop {
        signals.check("nothing was written")?;
        let n = input.file.read_at(&mut block, offset).with_context(doing)?;
        if n == 0 {
            break;
        }
        hasher.update(&block[..n]);
        offset += n as u64;
        progress(n as u64);
    }
    input.check_unchanged()?;
    Ok(FileDigest { name: input.name.clone(), sha256: hex::encode(hasher.finalize()), bytes: offset })
}

/// The path of an open file always exists, unless `/proc` is not mounted.
pub(crate) fn no_path(what: &str, cause: std::io::Error) -> Error {
    let not_mounted = cause.kind() == std::io::ErrorKind::NotFound;
    let error = Error::from(cause).context(format_args!("finding the path of {what}"));
    match not_mounted {
        true => error.with_kind(Kind::Unsupported).with_hint("mount /proc: `mount -t proc proc /proc`"),
        false => error,
    }
}

pub(crate) fn regular(what: String, name: String, path: PathBuf, fd: OwnedFd) -> Result<InputFile> {
    let file = File::from(fd);
    let metadata = file.metadata().with_context(|| format!("reading the metadata of {what}"))?;
    if !metadata.is_file() {
        return Err(Error::safety(format!("opening {what}: not a regular file")));
    }
    Ok(InputFile { name, path, bytes: metadata.len(), stamps: ChangeStamps::of(&metadata), file })
}
