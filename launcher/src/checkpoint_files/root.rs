//! A checkpoint directory. Names are resolved beneath its handle; the only link that may leave it is that of a cache snapshot into the
//! `blobs/` of its own repository.

use super::kinds;
use crate::error::{Context as _, Error, Result};
use crate::inputs::{InputFile, no_path, regular};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2, readlinkat};
use rustix::io::Errno;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// The file that a checkpoint must have besides its weights.
pub(super) const CONFIG: &str = "config.json";
pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The files of a PEFT adapter.
pub(super) const ADAPTER_CONFIG: &str = "adapter_config.json";
pub(super) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// A checkpoint directory, opened.
pub(super) struct Root<'a> {
    /// What it is, in messages.
    pub role: &'a str,
    /// Its path, links resolved.
    pub dir: PathBuf,
    fd: OwnedFd,
}

impl<'a> Root<'a> {
    pub fn open(role: &'a str, path: &Path) -> Result<Self> {
        let failed =
            |why: String| Error::input(format!("opening {role} checkpoint {}: {why}", path.display()));
        let dir = std::fs::canonicalize(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                failed("no such directory".to_owned()).with_hint(kinds::DIRECTORY)
            }
            _ => failed(e.to_string()),
        })?;
        if !dir.is_dir() {
            let (what, hint) = kinds::of_file(&dir);
            return Err(failed(what)).hint(hint);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat2(CWD, &dir, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
        let fd = opened.map_err(|errno| failed(errno.to_string()))?;
        Ok(Root { role, dir, fd })
    }

    /// Opens `name` beneath the directory; `None` when it does not exist.
    pub fn open_file(&self, name: &str) -> Result<Option<InputFile>> {
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

    /// Follows the link of a cache snapshot into the repository's `blobs/`: `../../blobs/NAME`, or the same as an absolute path, as older
    /// versions of huggingface_hub write it. Any other link is refused.
    fn open_blob(&self, name: &str, what: &str) -> Result<OwnedFd> {
        let failed = |errno: Errno| Error::input(format!("opening {what}: {errno}"));
        let link = readlinkat(&self.fd, name, Vec::new()).map_err(failed)?;
        let link = link.to_string_lossy();
        let leaves = || {
            Error::safety(format!(
                "opening {what}: its link {link:?} leaves the checkpoint; only links of a Hugging Face cache snapshot into \
                 blobs/ of the same repository are followed"
            ))
            .with_hint("copy the file into the checkpoint directory")
        };
        let Some(repository) = self.repository() else { return Err(leaves()) };
        let (directory, blob) = link.rsplit_once('/').unwrap_or_default();
        let own = directory == "../../blobs"
            || Path::new(directory).is_absolute()
                && std::fs::canonicalize(directory).is_ok_and(|found| found == repository.join("blobs"));
        let blobs_linked =
            || std::fs::symlink_metadata(repository.join("blobs")).is_ok_and(|found| found.is_symlink());
        if blobs_linked() {
            let repository = repository.display();
            return Err(Error::safety(format!("opening {what}: {repository}/blobs is a link; links are followed only into a directory of the same repository")))
                .hint(format!("put a directory in place of the link (a bind mount is one), or copy the snapshot with its files: `cp -rL {} DIR`", self.dir.display()));
        }
        if !own || blob.is_empty() || blob.starts_with('.') {
            return Err(leaves());
        }
        let dir = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let blobs = openat2(&self.fd, "../../blobs", dir, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&blobs, blob, flags, Mode::empty(), beneath).map_err(|errno| match errno {
            Errno::LOOP => leaves(),
            errno => failed(errno),
        })
    }

    /// The repository of a cache snapshot.
    fn repository(&self) -> Option<&Path> {
        let snapshots =
            self.dir.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
        snapshots.parent()
    }

    /// Whether the directory is a PEFT adapter: changes of weights, without the weights. Some programs copy `config.json` of the base model
    /// into it.
    pub fn is_adapter(&self) -> Result<bool> {
        let alone = self.open_file(CONFIG)?.is_none() || self.open_file(ADAPTER_WEIGHTS)?.is_some();
        let full = self.open_file(SINGLE)?.is_some() || self.open_file(INDEX)?.is_some();
        Ok(self.open_file(ADAPTER_CONFIG)?.is_some() && alone && !full && self.open_gguf()?.is_none())
    }

    /// The GGUF file of a directory without safetensors weights.
    pub fn open_gguf(&self) -> Result<Option<InputFile>> {
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
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}
