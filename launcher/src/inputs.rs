//! Inputs of a run. Every needed file of a checkpoint or dataset is opened once and hashed through that handle; the same handle is mounted
//! into the container.
//!
//! Names come from the Hugging Face layout and from the shard index, which is untrusted: names are resolved beneath the
//! handle of the checkpoint directory. The only link that may leave the directory is that of a cache snapshot into the
//! `blobs/` of its own repository.

use crate::dataset_files::name_inside;
use crate::error::{Context as _, Error, Kind, Result};
use crate::signals::Signals;
use crate::ui::Ui;
use invarlock_evidence::format::plan::{File as FileDigest, Files};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2, readlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Files that a causal checkpoint must have besides its weights.
const REQUIRED: [&str; 2] = ["config.json", "tokenizer.json"];
/// Files that it may have.
const OPTIONAL: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const MAX_INDEX_BYTES: u64 = 16 << 20;
const MAX_SHARDS: usize = 1024;
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

/// Opens the files of the checkpoint in `dir` that a measurement needs.
pub fn open_checkpoint(role: &str, dir: &Path) -> Result<Vec<InputFile>> {
    let root = Root::open(role, dir)?;
    let mut files = Vec::new();
    let gguf = root.open_gguf()?;
    for name in REQUIRED {
        match root.open_file(name)? {
            // A GGUF file contains configuration and tokenizer.
            None if gguf.is_none() => return Err(root.missing(name)),
            file => files.extend(file),
        }
    }
    for name in OPTIONAL {
        files.extend(root.open_file(name)?);
    }
    if let Some(gguf) = gguf {
        files.push(gguf);
        files.sort_by(|a, b| a.name.cmp(&b.name));
        return Ok(files);
    }
    match (root.open_file(INDEX)?, root.open_file(SINGLE)?) {
        (Some(index), Some(_)) => return Err(root.two_sets_of_weights(&index)),
        (Some(index), None) => {
            for shard in shards(&root, &index)? {
                files.push(root.open_file(&shard)?.ok_or_else(|| root.missing_shard(&shard))?);
            }
            files.push(index);
        }
        (None, Some(single)) => files.push(single),
        (None, None) => return Err(root.no_weights()),
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let mut weights = files.iter().filter(|file| file.name.ends_with(".safetensors"));
    weights.try_for_each(|file| refuse_pickle(role, file))?;
    Ok(files)
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

/// The places where a relative dataset file of a preset was looked up.
fn tried(path: &Path, preset: &Path) -> String {
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
    Error::input(format!("opening {what}: {error}")).with_hint(match error.kind() {
        std::io::ErrorKind::PermissionDenied => "the file must be readable by you".to_owned(),
        _ => match std::env::current_dir() {
            Ok(dir) => {
                format!("check the path; a relative path starts at the current directory {}", dir.display())
            }
            Err(_) => "check the path".to_owned(),
        },
    })
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

/// A checkpoint directory, opened.
struct Root<'a> {
    role: &'a str,
    dir: PathBuf,
    fd: OwnedFd,
}

impl<'a> Root<'a> {
    fn open(role: &'a str, path: &Path) -> Result<Self> {
        let failed =
            |why: String| Error::input(format!("opening {role} checkpoint {}: {why}", path.display()));
        let with_hint =
            |why: &str| failed(why.into()).with_hint("pass the directory that contains config.json");
        let dir = std::fs::canonicalize(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => with_hint("no such directory"),
            _ => failed(e.to_string()),
        })?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat2(CWD, &dir, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
        let fd = opened.map_err(|errno| match errno {
            Errno::NOTDIR => with_hint("not a directory"),
            errno => failed(errno.to_string()),
        })?;
        Ok(Root { role, dir, fd })
    }

    /// Opens `name` beneath the directory; `None` when it does not exist.
    fn open_file(&self, name: &str) -> Result<Option<InputFile>> {
        let what = format!("{} file {}/{name}", self.role, self.dir.display());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let fd = match openat2(&self.fd, name, flags, Mode::empty(), beneath) {
            Err(Errno::XDEV) => self.open_blob(name, &what)?,
            Err(Errno::NOENT) if readlinkat(&self.fd, name, Vec::new()).is_err() => return Ok(None),
            Err(Errno::NOENT) => {
                return Err(Error::input(format!("opening {what}: the target of the link does not exist")));
            }
            Err(errno) => {
                return Err(Error::input(format!("opening {what}: {errno}")))
                    .hint("the file must be readable by you");
            }
            Ok(fd) => fd,
        };
        let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let path = path.map_err(|error| no_path(&what, error))?;
        regular(what, name.to_owned(), path, fd).map(Some)
    }

    /// Follows the link `../../blobs/NAME` of a cache snapshot into the repository's `blobs/`. Any other link is refused.
    fn open_blob(&self, name: &str, what: &str) -> Result<OwnedFd> {
        let leaves = |link: &str| {
            Error::safety(format!(
                "opening {what}: its link {link:?} leaves the checkpoint; only links of a Hugging Face cache snapshot into \
                 blobs/ of the same repository are followed"
            ))
            .with_hint("copy the file into the checkpoint directory")
        };
        let failed = |errno: Errno| Error::input(format!("opening {what}: {errno}"));
        let link = readlinkat(&self.fd, name, Vec::new()).map_err(failed)?;
        let link = link.to_string_lossy();
        let in_snapshot = self.dir.parent().and_then(Path::file_name).is_some_and(|name| name == "snapshots");
        let blob = link
            .strip_prefix("../../blobs/")
            .filter(|blob| !blob.is_empty() && !blob.contains('/') && !blob.starts_with('.'));
        let (true, Some(blob)) = (in_snapshot, blob) else { return Err(leaves(&link)) };
        let dir = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let blobs = openat2(&self.fd, "../../blobs", dir, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&blobs, blob, flags, Mode::empty(), beneath).map_err(|errno| match errno {
            Errno::LOOP => leaves(&link),
            errno => failed(errno),
        })
    }

    fn missing(&self, name: &str) -> Error {
        let hint = match name {
            "tokenizer.json" => {
                "save the tokenizer with the tokenizers library (a `fast` tokenizer writes it)"
            }
            _ => "pass the directory of a Hugging Face checkpoint",
        };
        let (role, dir) = (self.role, self.dir.display());
        Error::input(format!("{role} checkpoint {dir}: {name} is missing")).with_hint(hint)
    }

    fn missing_shard(&self, shard: &str) -> Error {
        let (role, dir) = (self.role, self.dir.display());
        Error::input(format!("{role} checkpoint {dir}: {shard:?}, which {INDEX} names, is missing"))
            .with_hint("download the checkpoint again, with all its shards")
    }

    /// A single file and an index: programs disagree about which of them counts.
    fn two_sets_of_weights(&self, index: &InputFile) -> Error {
        let (role, dir) = (self.role, self.dir.display());
        let error = Error::input(format!(
            "{role} checkpoint {dir}: both {SINGLE} and {INDEX} exist; they may contain different weights"
        ));
        let missing = shards(self, index)
            .ok()
            .and_then(|shards| shards.into_iter().find(|shard| matches!(self.open_file(shard), Ok(None))));
        match missing {
            Some(shard) => error.with_hint(format!("remove {INDEX}: its file {shard:?} is missing")),
            None => error.with_hint(format!(
                "remove {SINGLE}, or remove {INDEX} and its shards, whichever is left from an earlier save"
            )),
        }
    }

    /// Why there are no usable weights. Pickle files are named and never opened.
    /// The GGUF file of a directory without safetensors weights.
    fn open_gguf(&self) -> Result<Option<InputFile>> {
        if self.open_file(SINGLE)?.is_some() || self.open_file(INDEX)?.is_some() {
            return Ok(None);
        }
        let names: Vec<String> = self.names().into_iter().filter(|name| name.ends_with(".gguf")).collect();
        match names.as_slice() {
            [] => Ok(None),
            [name] => self.open_file(name),
            [one, other, ..] => {
                let (role, dir) = (self.role, self.dir.display());
                Err(Error::input(format!("{role} checkpoint {dir}: two GGUF files, {one:?} and {other:?}")))
                    .hint("use a directory with one of them; merge parts with llama-gguf-split --merge")
            }
        }
    }

    /// Names of the files in the directory.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn no_weights(&self) -> Error {
        let names = self.names();
        let ends_with = |ends: &[&str]| names.iter().find(|name| ends.iter().any(|end| name.ends_with(end)));
        let (role, dir) = (self.role, self.dir.display());
        let error = |why: String| Error::input(format!("{role} checkpoint {dir}: {why}"));
        match ends_with(&[".safetensors"]) {
            Some(name) if name.contains("-of-") => {
                return error(format!("{INDEX}, which names shards such as {name:?}, is missing"))
                    .with_hint("download the checkpoint again, with its index");
            }
            Some(name) => {
                return error(format!("neither {SINGLE} nor {INDEX} exists, but {name:?} does"))
                    .with_hint(format!("if it contains all weights, rename it to {SINGLE}"));
            }
            None => {}
        }
        let why = match ends_with(&[".bin", ".pt", ".pth", ".pkl", ".ckpt"]) {
            Some(name) => {
                format!("the weights are in the pickle {name:?}; a pickle can run code and is never opened")
            }
            None => format!("neither {SINGLE} nor {INDEX} exists"),
        };
        error(why).with_hint("save the weights as safetensors")
    }
}

/// The path of an open file always exists, unless `/proc` is not mounted.
fn no_path(what: &str, cause: std::io::Error) -> Error {
    let not_mounted = cause.kind() == std::io::ErrorKind::NotFound;
    let error = Error::from(cause).context(format_args!("finding the path of {what}"));
    match not_mounted {
        true => error.with_kind(Kind::Unsupported).with_hint("mount /proc: `mount -t proc proc /proc`"),
        false => error,
    }
}

fn regular(what: String, name: String, path: PathBuf, fd: OwnedFd) -> Result<InputFile> {
    let file = File::from(fd);
    let metadata = file.metadata().with_context(|| format!("reading the metadata of {what}"))?;
    if !metadata.is_file() {
        return Err(Error::safety(format!("opening {what}: not a regular file")));
    }
    Ok(InputFile { name, path, bytes: metadata.len(), stamps: ChangeStamps::of(&metadata), file })
}

/// The shard names of an index: plain file names, sorted, without duplicates.
fn shards(root: &Root<'_>, index: &InputFile) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let invalid =
        |why: String| Error::input(format!("reading {} {}: {why}", root.role, index.path.display()));
    if index.bytes > MAX_INDEX_BYTES {
        return Err(invalid("larger than 16 MiB".into()));
    }
    let mut text = Vec::new();
    (&index.file).take(MAX_INDEX_BYTES).read_to_end(&mut text).map_err(|e| invalid(e.to_string()))?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))?;
    let names: std::collections::BTreeSet<String> = parsed.weight_map.into_values().collect();
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(invalid(format!("{} shard names; 1 to {MAX_SHARDS} are allowed", names.len())));
    }
    for name in &names {
        let plain =
            name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !name.starts_with('.');
        if !plain || !name.ends_with(".safetensors") {
            let why = format!("shard name {name:?} is not a plain name ending in .safetensors");
            return Err(invalid(why).with_kind(Kind::Safety));
        }
    }
    Ok(names.into_iter().collect())
}

/// Refuses a pickle (bare or zipped) that is named `*.safetensors`, by its first bytes.
fn refuse_pickle(role: &str, input: &InputFile) -> Result<()> {
    let mut head = [0u8; 9];
    let n = input.file.read_at(&mut head, 0).with_context(|| format!("reading {}", input.path.display()))?;
    let zipped = head[..n].starts_with(b"PK\x03\x04");
    // A safetensors header may have a length that starts with these bytes; then its ninth byte is the opening brace.
    let pickled = head[0] == 0x80 && (2..=5).contains(&head[1]) && head[8] != b'{';
    if zipped || pickled {
        let path = input.path.display();
        return Err(Error::input(format!("{role} weights {path}: the content is a pickle, not safetensors")))
            .hint("save the weights as safetensors");
    }
    Ok(())
}
