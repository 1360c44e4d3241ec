//! Writing the layers of an image as one directory, as overlayfs shows them, for runtimes that take a single root directory.
//!
//! Directories of layers and of the result are opened below their roots without following a link. Whiteouts are applied by leaving out what
//! they remove, so nothing is ever deleted.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use invarlock_error::Context as _;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
    chownat, fchmod, fchown, fstat, futimens, linkat, mkdirat, openat, openat2, readlinkat, statat,
    symlinkat,
};
use rustix::io::Errno;

use super::image::VerifiedRootfs;
use crate::Result;
use crate::layer::inspect::{altered, file_type, inspect_error, is_whiteout, permissions};
use crate::layer::xattr;
use crate::progress::Progress;
use crate::tar::MAX_DEPTH;

/// How a merged directory is written.
#[derive(Clone, Copy)]
pub struct MergeOptions<'a> {
    /// Directories of the caller below the layers of the image, lowest first.
    pub below: &'a [&'a Path],
    /// Directories of the caller above the layers of the image, lowest first.
    pub above: &'a [&'a Path],
    /// The owner of all files, user and group; none for that of this process.
    pub owner: Option<(u32, u32)>,
    /// Reports the bytes of files that were written.
    pub progress: Progress<'a>,
}

impl VerifiedRootfs {
    /// Writes the files of the image, as a container sees them, to the empty directory `to`.
    pub fn merge(&self, to: impl AsFd, options: MergeOptions<'_>) -> Result<()> {
        let own = self.layers.iter().map(AsRef::as_ref);
        let stack = options.below.iter().copied().chain(own).chain(options.above.iter().copied());
        let layers = stack.rev().map(open_root).collect::<Result<Vec<_>>>()?;
        let to = openat(to, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context("opening the directory for the files of the image")?;
        let all: Vec<usize> = (0..layers.len()).collect();
        Merge { layers, to, options, links: HashMap::new() }.directory("", &all, 0)
    }
}

fn open_root(layer: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, layer, flags, Mode::empty()).with_context(|| format!("opening layer {}", layer.display()))
}

/// Opens a directory below a root. No component of its path is a link or a mount point.
fn open_below(root: impl AsFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { "." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(root, path, flags, Mode::empty(), resolve)
}

/// A name in a merged directory.
enum Entry {
    /// A whiteout.
    Removed,
    /// A file or link of this layer.
    File { layer: usize, stat: Stat },
    /// A directory of these layers, highest first. It is closed if nothing of lower layers shows.
    Directory { layers: Vec<usize>, closed: bool },
}

struct Merge<'a> {
    /// Highest first.
    layers: Vec<OwnedFd>,
    to: OwnedFd,
    options: MergeOptions<'a>,
    /// The path of the first name of each file with several names, by layer and inode.
    links: HashMap<(usize, u64), String>,
}

impl Merge<'_> {
    /// Writes the contents and the attributes of a directory that exists in `members`.
    fn directory(&mut self, path: &str, members: &[usize], depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(altered(path, "is deeper than an image can be"));
        }
        let entries = self.entries(path, members)?;
        for (name, entry) in entries {
            let child = below(path, &name);
            match entry {
                Entry::Removed => {}
                Entry::File { layer, stat } => self.file(path, &name, &child, layer, &stat)?,
                Entry::Directory { layers, .. } => {
                    let parent = open_below(&self.to, path).map_err(writing(path))?;
                    mkdirat(&parent, &*name, Mode::RWXU).map_err(writing(&child))?;
                    drop(parent);
                    self.directory(&child, &layers, depth + 1)?;
                }
            }
        }
        let Some(top) = members.first() else { return Ok(()) };
        let source = open_below(&self.layers[*top], path).map_err(inspect_error(path))?;
        let made = open_below(&self.to, path).map_err(writing(path))?;
        self.attributes(source.as_fd(), made.as_fd(), path)
    }

    /// The names of a directory and what each is, without a handle that stays open.
    fn entries(&self, path: &str, members: &[usize]) -> Result<BTreeMap<String, Entry>> {
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        for member in members {
            let directory = open_below(&self.layers[*member], path).map_err(inspect_error(path))?;
            for name in names(&directory, path)? {
                let child = below(path, &name);
                let stat =
                    statat(&directory, &*name, AtFlags::SYMLINK_NOFOLLOW).map_err(inspect_error(&child))?;
                let is_directory = file_type(&stat) == FileType::Directory;
                let opaque = || -> Result<bool> {
                    Ok(xattr::is_opaque(open_below(&directory, &name).map_err(inspect_error(&child))?))
                };
                match entries.get_mut(&name) {
                    None => {
                        let entry = match is_directory {
                            true => Entry::Directory { layers: vec![*member], closed: opaque()? },
                            false if is_whiteout(&stat) => Entry::Removed,
                            false => Entry::File { layer: *member, stat },
                        };
                        entries.insert(name, entry);
                    }
                    Some(Entry::Directory { layers, closed: closed @ false }) => match is_directory {
                        true => {
                            layers.push(*member);
                            *closed = opaque()?;
                        }
                        false => *closed = true,
                    },
                    Some(_) => {}
                }
            }
        }
        Ok(entries)
    }

    fn file(&mut self, parent: &str, name: &str, path: &str, layer: usize, stat: &Stat) -> Result<()> {
        let source = open_below(&self.layers[layer], parent).map_err(inspect_error(parent))?;
        let to = open_below(&self.to, parent).map_err(writing(parent))?;
        match file_type(stat) {
            FileType::RegularFile | FileType::Symlink => {}
            _ => return Err(altered(path, "is a device, fifo or socket")),
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(layer, stat.st_ino)) {
                let (directory, base) = first.rsplit_once('/').unwrap_or(("", first));
                let from = open_below(&self.to, directory).map_err(writing(first))?;
                return linkat(from, base, to, name, AtFlags::empty()).map_err(writing(path));
            }
            self.links.insert((layer, stat.st_ino), path.to_owned());
        }
        if file_type(stat) == FileType::Symlink {
            let target = readlinkat(&source, name, Vec::new()).map_err(inspect_error(path))?;
            symlinkat(&target, &to, name).map_err(writing(path))?;
            let (uid, gid) = self.owner();
            return chownat(&to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(writing(path));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = openat(&source, name, flags, Mode::empty()).map_err(inspect_error(path))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&to, name, flags, Mode::RUSR | Mode::WUSR).map_err(writing(path))?;
        let (source, made) = (File::from(source), File::from(made));
        self.content(&source, &made).with_context(|| format!("writing /{path}"))?;
        self.attributes(source.as_fd(), made.as_fd(), path)
    }

    /// Copies the data of a file; holes stay holes.
    fn content(&self, mut source: &File, mut to: &File) -> std::io::Result<()> {
        let size = source.metadata()?.len();
        let mut at = 0;
        while at < size {
            at = match rustix::fs::seek(source, rustix::fs::SeekFrom::Data(at)) {
                Err(Errno::NXIO) => break,
                other => other?,
            };
            let end = rustix::fs::seek(source, rustix::fs::SeekFrom::Hole(at))?.min(size);
            source.seek(SeekFrom::Start(at))?;
            to.seek(SeekFrom::Start(at))?;
            let copied = std::io::copy(&mut std::io::Read::take(&mut source, end - at), &mut to)?;
            if copied == 0 {
                break;
            }
            (self.options.progress)(copied);
            at += copied;
        }
        to.set_len(size)
    }

    /// Gives a file or directory the attributes of its source.
    fn attributes(&self, source: BorrowedFd<'_>, made: BorrowedFd<'_>, path: &str) -> Result<()> {
        let stat = fstat(source).map_err(inspect_error(path))?;
        let (kept, _) = xattr::read(source).map_err(inspect_error(path))?;
        xattr::write(made, &kept).with_context(|| format!("writing /{path}"))?;
        let (uid, gid) = self.owner();
        fchown(made, uid, gid).map_err(writing(path))?;
        let mode = permissions(&stat) & 0o1777;
        fchmod(made, Mode::from_raw_mode(mode)).map_err(writing(path))?;
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 },
        };
        futimens(made, &times).map_err(writing(path))
    }

    fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        self.options
            .owner
            .map_or((None, None), |(uid, gid)| (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
    }
}

/// The path of a name in a directory.
fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// The names in a directory.
fn names(directory: &OwnedFd, path: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory).map_err(inspect_error(path))? {
        let entry = entry.map_err(inspect_error(path))?;
        match entry.file_name().to_str() {
            Ok("." | "..") => {}
            Ok(name) => names.push(name.to_owned()),
            Err(_) => return Err(altered(path, "contains a name that is not of the image")),
        }
    }
    Ok(names)
}

/// The error for a file of the result.
fn writing(path: &str) -> impl FnOnce(Errno) -> crate::Error {
    let context = format!("writing /{path}");
    move |errno| crate::Error::from(errno).context(context)
}
