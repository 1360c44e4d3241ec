//! Inputs of a run: every needed file of a checkpoint or dataset is opened once, hashed through that handle, and the same
//! handle is what the container gets mounted.
//!
//! Names come from the Hugging Face layout and from the shard index, which is untrusted: names are looked up beneath the
//! checkpoint's own directory handle only. The one link that may leave the directory is that of a cache snapshot into its
//! own repository's `blobs/`.

use crate::error::{Error, Kind, Result};
use crate::signals::Signals;
use crate::ui::Ui;
use invarlock_error::Context as _;
use invarlock_evidence::numerics::digest::hex;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2, readlinkat};
use rustix::io::Errno;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Files a causal checkpoint must and may have besides its weights.
const REQUIRED: [&str; 2] = ["config.json", "tokenizer.json"];
const OPTIONAL: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const MAX_INDEX_BYTES: u64 = 16 << 20;
const MAX_SHARDS: usize = 1024;
const HASH_BLOCK: usize = 1 << 20;

/// One opened file.
#[derive(Debug)]
pub struct InputFile {
    /// Name inside the checkpoint or dataset directory of the container.
    pub name: String,
    /// Where it really lies, links resolved.
    pub path: PathBuf,
    /// The handle that was hashed.
    pub file: File,
    /// Size in bytes when opened.
    pub bytes: u64,
    /// What the file system said when it was opened.
    stamp: Stamp,
}

/// Identity and times of a file; the change time cannot be set back by its owner.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(m: &std::fs::Metadata) -> Self {
        Stamp {
            device: m.dev(),
            inode: m.ino(),
            bytes: m.len(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        }
    }
}

impl InputFile {
    /// Fails when the file behind the handle, or the file at its path, is no longer the one that was opened.
    pub fn check_unchanged(&self) -> Result<()> {
        let failed =
            |e: std::io::Error| Error::from(e).context(format_args!("examining {}", self.path.display()));
        let behind = self.file.metadata().map_err(failed)?;
        let named = std::fs::symlink_metadata(&self.path).map_err(failed)?;
        if Stamp::of(&behind) == self.stamp && Stamp::of(&named) == self.stamp {
            return Ok(());
        }
        let message = format!(
            "input {}: the file was changed or replaced while it was in use; stop its writer and run again",
            self.path.display()
        );
        Err(Error::new(Kind::Integrity, message))
    }
}

/// What the evidence says of a file.
#[derive(Debug, Clone, Serialize)]
pub struct FileDigest {
    /// Name inside its directory.
    pub name: String,
    /// Lower-case hex SHA-256 of the content.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// A checkpoint or dataset with its digests.
#[derive(Debug, Clone, Serialize)]
pub struct TreeDigest {
    /// As the user gave it.
    pub path: String,
    /// SHA-256 over the sorted lines `<sha256>  <name>\n` of its files.
    pub tree_sha256: String,
    /// The files, sorted by name.
    pub files: Vec<FileDigest>,
}

/// Opens the files of the checkpoint in `dir` that a measurement needs.
pub fn open_checkpoint(role: &str, dir: &Path) -> Result<Vec<InputFile>> {
    let root = Root::open(role, dir)?;
    let mut files = Vec::new();
    for name in REQUIRED {
        files.push(root.open_file(name)?.ok_or_else(|| root.missing(name))?);
    }
    for name in OPTIONAL {
        files.extend(root.open_file(name)?);
    }
    let index = root.open_file(INDEX)?;
    let single = if index.is_none() { root.open_file(SINGLE)? } else { None };
    match (index, single) {
        (Some(index), _) => {
            for shard in shards(&root, &index)? {
                files.push(root.open_file(&shard)?.ok_or_else(|| {
                    Error::input(format!(
                        "{role} {}: {INDEX} names {shard:?}, which is not there",
                        root.dir.display()
                    ))
                })?);
            }
            files.push(index);
        }
        (None, Some(single)) => files.push(single),
        (None, None) => return Err(root.no_weights()),
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    for file in files.iter().filter(|f| f.name.ends_with(".safetensors")) {
        refuse_pickle(role, file)?;
    }
    Ok(files)
}

/// Opens the dataset files; in the container they are `0.jsonl`, `1.jsonl`, …
pub fn open_dataset(paths: &[PathBuf]) -> Result<Vec<InputFile>> {
    let open = |(i, path): (usize, &PathBuf)| {
        let failed =
            |e: std::io::Error| Error::input(format!("opening dataset file {}: {e}", path.display()));
        let real = std::fs::canonicalize(path).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = openat2(CWD, &real, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .map_err(|e| failed(e.into()))?;
        regular(format!("dataset file {}", path.display()), format!("{i}.jsonl"), real, fd)
    };
    paths.iter().enumerate().map(open).collect()
}

/// Reads a small regular file, which may be a link; `what` names it for people.
pub fn read_small(what: &str, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::input(format!("opening {what}: {e}"));
    let real = std::fs::canonicalize(path).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd =
        openat2(CWD, &real, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(|e| failed(e.into()))?;
    let input = regular(what.to_owned(), String::new(), real, fd)?;
    let mut bytes = Vec::new();
    input.file.take(limit + 1).read_to_end(&mut bytes).context(format_args!("reading {what}"))?;
    match bytes.len() as u64 > limit {
        true => Err(Error::input(format!("reading {what}: larger than {limit} bytes"))),
        false => Ok(bytes),
    }
}

/// Hashes every file through its handle, one thread a file up to the number of cores.
pub fn digest(
    ui: &Ui,
    signals: &Signals,
    label: &str,
    given: &Path,
    files: &[InputFile],
) -> Result<TreeDigest> {
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
        // This thread works as well, so that fewer than wanted are enough.
        let own = work();
        let panicked = || Err(Error::new(Kind::System, "a hashing thread panicked"));
        let others = others.into_iter().map(|h| h.join().unwrap_or_else(|_| panicked()));
        std::iter::once(own).chain(others).collect()
    });
    let mut digests = Vec::new();
    for result in results {
        digests.extend(result?);
    }
    digests.sort_by(|a, b| a.name.cmp(&b.name));
    let mut tree = Sha256::new();
    for d in &digests {
        tree.update(format!("{}  {}\n", d.sha256, d.name));
    }
    step.done(&format!("{} files", digests.len()));
    let path = given.to_string_lossy().into_owned();
    Ok(TreeDigest { path, tree_sha256: hex(&tree.finalize()), files: digests })
}

fn hash(input: &InputFile, signals: &Signals, progress: &dyn Fn(u64)) -> Result<FileDigest> {
    let failed = |e: std::io::Error| Error::from(e).context(format_args!("hashing {}", input.path.display()));
    let (mut hasher, mut block, mut offset) = (Sha256::new(), vec![0u8; HASH_BLOCK], 0u64);
    loop {
        signals.check("nothing was written")?;
        let n = input.file.read_at(&mut block, offset).map_err(failed)?;
        if n == 0 {
            break;
        }
        hasher.update(&block[..n]);
        offset += n as u64;
        progress(n as u64);
    }
    input.check_unchanged()?;
    Ok(FileDigest { name: input.name.clone(), sha256: hex(&hasher.finalize()), bytes: offset })
}

/// A checkpoint directory, opened.
struct Root<'a> {
    role: &'a str,
    dir: PathBuf,
    fd: OwnedFd,
}

impl<'a> Root<'a> {
    fn open(role: &'a str, given: &Path) -> Result<Self> {
        let bad = |why: String| Error::input(format!("opening {role} checkpoint {}: {why}", given.display()));
        let dir = std::fs::canonicalize(given).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                bad("there is no such directory; give the directory of a Hugging Face checkpoint".into())
            }
            _ => bad(e.to_string()),
        })?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            openat2(CWD, &dir, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(|e| match e {
                Errno::NOTDIR => bad("not a directory; give the directory that holds config.json".into()),
                e => bad(e.to_string()),
            })?;
        Ok(Root { role, dir, fd })
    }

    /// Opens `name` beneath the directory; `None` when it is not there.
    fn open_file(&self, name: &str) -> Result<Option<InputFile>> {
        let what = format!("{} file {}/{name}", self.role, self.dir.display());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let fd = match openat2(&self.fd, name, flags, Mode::empty(), beneath) {
            Err(Errno::XDEV) => self.open_blob(name, &what)?,
            Err(Errno::NOENT) if readlinkat(&self.fd, name, Vec::new()).is_err() => return Ok(None),
            Err(Errno::NOENT) => {
                return Err(Error::input(format!("opening {what}: the link points to nothing")));
            }
            Err(e) => return Err(Error::input(format!("opening {what}: {e}; it must be readable by you"))),
            Ok(fd) => fd,
        };
        let path = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)))
            .map_err(|e| no_path(&what, &e))?;
        regular(what, name.to_owned(), path, fd).map(Some)
    }

    /// Follows a cache snapshot's link `../../blobs/NAME`, and no other, into the repository's `blobs/`.
    fn open_blob(&self, name: &str, what: &str) -> Result<OwnedFd> {
        let leaves = |link: &str| {
            let message = format!(
                "opening {what}: its link {link:?} leaves the checkpoint; only links of a Hugging Face cache snapshot into \
                 its own repository's blobs/ are followed. Copy the file into the directory"
            );
            Error::new(Kind::Safety, message)
        };
        let failed = |e: Errno| Error::input(format!("opening {what}: {e}"));
        let link = readlinkat(&self.fd, name, Vec::new()).map_err(failed)?;
        let link = link.to_string_lossy();
        let in_snapshot = self.dir.parent().and_then(Path::file_name).is_some_and(|n| n == "snapshots");
        let blob = link
            .strip_prefix("../../blobs/")
            .filter(|b| !b.is_empty() && !b.contains('/') && !b.starts_with('.'));
        let (true, Some(blob)) = (in_snapshot, blob) else { return Err(leaves(&link)) };
        let dir = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let blobs = openat2(&self.fd, "../../blobs", dir, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&blobs, blob, flags, Mode::empty(), beneath).map_err(|e| match e {
            Errno::LOOP => leaves(&link),
            e => failed(e),
        })
    }

    fn missing(&self, name: &str) -> Error {
        let remedy = match name {
            "tokenizer.json" => "save it with the tokenizers library (a `fast` tokenizer writes it)",
            _ => "this does not look like a Hugging Face checkpoint",
        };
        Error::input(format!("{} checkpoint {}: {name} is missing; {remedy}", self.role, self.dir.display()))
    }

    /// Says why there are no usable weights; pickle files are named, never opened.
    fn no_weights(&self) -> Error {
        let names = std::fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|e| e.file_name());
        let pickle = names
            .map(|n| n.to_string_lossy().into_owned())
            .find(|n| [".bin", ".pt", ".pth", ".pkl", ".ckpt"].iter().any(|end| n.ends_with(end)));
        let why = match pickle {
            Some(name) => format!(
                "its weights are in {name:?}, a pickle, which can run code and is never opened; save them as safetensors"
            ),
            None => format!("there is neither {SINGLE} nor {INDEX}"),
        };
        Error::input(format!("{} checkpoint {}: {why}", self.role, self.dir.display()))
    }
}

/// An open file always has one, as long as there is a `/proc` to ask.
fn no_path(what: &str, cause: &std::io::Error) -> Error {
    let message = format!("finding the path of {what}: {cause}");
    match cause.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(Kind::Unsupported, format!("{message}; mount /proc: `mount -t proc proc /proc`"))
        }
        _ => Error::new(Kind::System, message),
    }
}

fn regular(what: String, name: String, path: PathBuf, fd: OwnedFd) -> Result<InputFile> {
    let file = File::from(fd);
    let metadata = file.metadata().context(format_args!("examining {what}"))?;
    if !metadata.is_file() {
        return Err(Error::new(Kind::Safety, format!("opening {what}: not a regular file")));
    }
    Ok(InputFile { name, path, bytes: metadata.len(), stamp: Stamp::of(&metadata), file })
}

/// The shard names of an index: plain file names, sorted, each once.
fn shards(root: &Root<'_>, index: &InputFile) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let bad = |why: String| Error::input(format!("reading {} {}: {why}", root.role, index.path.display()));
    if index.bytes > MAX_INDEX_BYTES {
        return Err(bad("larger than 16 MiB".into()));
    }
    let mut text = Vec::new();
    (&index.file).take(MAX_INDEX_BYTES).read_to_end(&mut text).map_err(|e| bad(e.to_string()))?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    let names: std::collections::BTreeSet<String> = parsed.weight_map.into_values().collect();
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(bad(format!("it names {} shards; 1 to {MAX_SHARDS} are allowed", names.len())));
    }
    for name in &names {
        let plain =
            name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !name.starts_with('.');
        if !plain || !name.ends_with(".safetensors") {
            return Err(bad(format!("shard name {name:?} is not a plain name ending in .safetensors"))
                .with_kind(Kind::Safety));
        }
    }
    Ok(names.into_iter().collect())
}

/// Refuses a pickle (bare or zipped) that calls itself safetensors, by its first bytes.
fn refuse_pickle(role: &str, input: &InputFile) -> Result<()> {
    let mut head = [0u8; 9];
    let n = input.file.read_at(&mut head, 0).context(format_args!("reading {}", input.path.display()))?;
    let zipped = head[..n].starts_with(b"PK\x03\x04");
    // A safetensors header of such a length is possible; its ninth byte is then the opening brace.
    let pickled = head[0] == 0x80 && (2..=5).contains(&head[1]) && head[8] != b'{';
    if zipped || pickled {
        return Err(Error::input(format!(
            "{role} weights {}: the content is a pickle, not safetensors; it is refused and was not read further. \
             Save the weights as safetensors",
            input.path.display()
        )));
    }
    Ok(())
}
