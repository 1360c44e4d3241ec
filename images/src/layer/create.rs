//! Creation of the archive of a layer from a directory. The same files give the same bytes, whatever the path and the owner of the
//! directory: entries are sorted by name, are owned by root and share one timestamp. The directory is walked by handles and no link is
//! followed. A file that changes while it is read is an error.

use invarlock_error::{Context as _, Kind};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, open, openat, readlinkat, statat};
use rustix::io::Errno;
use serde::Serialize;

use super::cursor::directory;
use super::inspect::file_type;
use super::limits::{Policy, SpecialFilePolicy};
use super::xattr;
use crate::progress::Progress;
use crate::tar::{Attributes, Entry, MAX_DEPTH};
use crate::{Error, Result};

/// Prefix of the name of a whiteout.
const WHITEOUT: &str = ".wh.";

/// Numbers of things in a directory that are not in the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct LeftOut {
    /// Set-id bits.
    pub set_id: u64,
    /// Devices, fifos and sockets.
    pub devices: u64,
    /// Extended attributes.
    pub attributes: u64,
}

/// How a layer is created.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a> {
    /// The modification time of all entries, in seconds since 1970.
    pub time: u64,
    /// Whether there are lower layers, from which whiteouts can remove entries.
    pub has_lower_layers: bool,
    /// Device and inode of the store, which cannot be in its own image.
    pub store: (u64, u64),
    pub policy: Policy,
    /// Reports the bytes of files that were read.
    pub progress: Progress<'a>,
}

/// Reads the content of some files while they are added to a layer.
pub(crate) trait FileObserver {
    /// Whether the content of the file is wanted.
    fn wants(&mut self, path: &str, size: u64) -> bool;

    /// Called with the content of a wanted file.
    fn observe(&mut self, path: &str, content: &[u8]);
}

/// Writes the archive of the contents of the directory `root`.
pub(crate) fn create(
    root: &Path,
    options: Options<'_>,
    observer: &mut dyn FileObserver,
    archive: &mut dyn Write,
) -> Result<LeftOut> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = open(root, flags, Mode::empty()).map_err(|errno| {
        let error = Error::from(errno).context("opening it");
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::ACCESS => error.with_kind(Kind::Input),
            _ => error,
        }
    })?;
    let device = fstat(&handle).map_err(failed("", "reading its metadata"))?.st_dev;
    let mut creation = Creation {
        options,
        device,
        archive,
        observer,
        links: HashMap::new(),
        buffer: vec![0; 256 << 10],
        left_out: LeftOut::default(),
    };
    creation.directory(handle.as_fd(), "", 0)?;
    creation.archive.write_all(&[0; 1024]).context("writing the layer")?;
    Ok(creation.left_out)
}

/// The state of the creation of a layer.
struct Creation<'a> {
    options: Options<'a>,
    /// The device of the root: other file systems are refused.
    device: u64,
    archive: &'a mut dyn Write,
    observer: &'a mut dyn FileObserver,
    /// The first path of each file with several names, by device and inode.
    links: HashMap<(u64, u64), String>,
    buffer: Vec<u8>,
    left_out: LeftOut,
}

impl Creation<'_> {
    /// Adds the contents of a directory, in the order of names.
    fn directory(&mut self, handle: BorrowedFd<'_>, path: &str, depth: usize) -> Result<()> {
        let before = fstat(handle).map_err(failed(path, "reading its metadata"))?;
        if before.st_dev != self.device {
            return Err(Error::input(format!("/{path}: another file system is mounted there"))
                .with_hint("unmount it, or build from a copy"));
        }
        if (before.st_dev, before.st_ino) == self.options.store {
            return Err(Error::input(format!(
                "/{path} is the image store, which cannot be part of an image"
            ))
            .with_hint("set INVARLOCK_STORE to a directory elsewhere"));
        }
        if depth >= MAX_DEPTH {
            return Err(Error::input(format!("/{path}: more than {MAX_DEPTH} nested directories")));
        }
        for name in names(handle, path)? {
            let child = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            self.entry(handle, &child, &name, depth)?;
        }
        check_unchanged(&before, &fstat(handle).map_err(failed(path, "reading its metadata"))?, path)
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, path: &str, name: &str, depth: usize) -> Result<()> {
        if name.starts_with(WHITEOUT) && !self.options.has_lower_layers {
            return Err(Error::input(format!(
                "/{path}: a name with the prefix {WHITEOUT} removes an entry of a lower layer, but there is no lower layer"
            )));
        }
        let stat =
            statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(path, "reading its metadata"))?;
        match file_type(&stat) {
            FileType::Directory => {
                let handle = directory(parent, name).map_err(failed(path, "opening it"))?;
                check_unchanged(&stat, &fstat(&handle).map_err(failed(path, "reading its metadata"))?, path)?;
                let attributes = self.attributes(&handle, path)?;
                let entry = Entry::new(path, self.options.time, self.mode(&stat)).with_attributes(attributes);
                self.header(&entry.directory())?;
                self.directory(handle.as_fd(), path, depth + 1)
            }
            FileType::RegularFile => self.file(parent, path, name, &stat),
            FileType::Symlink => {
                let target =
                    readlinkat(parent, name, Vec::new()).map_err(failed(path, "reading the link"))?;
                let target = target.into_string().map_err(|_| not_utf8(path))?;
                self.header(&Entry::new(path, self.options.time, 0o777).symlink(&target))
            }
            _ if self.options.policy.devices == SpecialFilePolicy::Drop => {
                self.left_out.devices += 1;
                Ok(())
            }
            _ => {
                Err(Error::input(format!("/{path} is a device, fifo or socket, which images cannot contain"))
                    .with_hint("remove it, or leave out such files with --drop-devices"))
            }
        }
    }

    fn file(&mut self, parent: BorrowedFd<'_>, path: &str, name: &str, stat: &Stat) -> Result<()> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let entry = Entry::new(path, self.options.time, image_mode(stat)).hardlink(first);
                return entry.write(self.archive).context("writing the layer");
            }
            self.links.insert(key, path.to_owned());
        }
        // NONBLOCK: opening a fifo that replaced the file must not block.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let handle = openat(parent, name, flags, Mode::empty()).map_err(failed(path, "opening it"))?;
        check_unchanged(stat, &fstat(&handle).map_err(failed(path, "reading its metadata"))?, path)?;
        let size = stat.st_size.unsigned_abs();
        let attributes = self.attributes(&handle, path)?;
        let entry = Entry::new(path, self.options.time, self.mode(stat)).with_attributes(attributes);
        self.header(&entry.file(size))?;
        let mut observed = self.observer.wants(path, size).then(Vec::new);
        let mut file = File::from(handle);
        let mut left = size;
        while left > 0 {
            let length = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(&mut self.buffer[..length]).with_context(|| format!("reading /{path}"))?;
            if count == 0 {
                return Err(changed(path));
            }
            self.archive.write_all(&self.buffer[..count]).context("writing the layer")?;
            if let Some(observed) = &mut observed {
                observed.extend_from_slice(&self.buffer[..count]);
            }
            left -= count as u64;
            (self.options.progress)(count as u64);
        }
        check_unchanged(stat, &fstat(&file).map_err(failed(path, "reading its metadata"))?, path)?;
        let padding = usize::try_from((512 - size % 512) % 512).unwrap_or_default();
        self.archive.write_all(&[0; 512][..padding]).context("writing the layer")?;
        if let Some(content) = observed {
            self.observer.observe(path, &content);
        }
        Ok(())
    }

    fn header(&mut self, entry: &Entry<'_>) -> Result<()> {
        entry.write(self.archive).context("writing the layer")
    }

    /// The mode in the image. Dropped set-id bits are counted.
    fn mode(&mut self, stat: &Stat) -> u32 {
        self.left_out.set_id += u64::from(stat.st_mode & 0o6000 != 0);
        image_mode(stat)
    }

    fn attributes(&mut self, file: impl AsFd, path: &str) -> Result<Attributes> {
        let (kept, dropped) = xattr::read(file).map_err(failed(path, "reading extended attributes"))?;
        self.left_out.attributes += dropped;
        Ok(kept)
    }
}

/// The mode in the image: without set-id bits, and writable only by the owner except in sticky directories such as `/tmp`, so that the umask
/// under which files were created does not matter.
fn image_mode(stat: &Stat) -> u32 {
    stat.st_mode & if stat.st_mode & 0o1000 == 0 { 0o755 } else { 0o1777 }
}

/// The names in a directory, sorted by their bytes.
fn names(handle: BorrowedFd<'_>, path: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(handle).map_err(failed(path, "reading it"))? {
        let entry = entry.map_err(failed(path, "reading it"))?;
        let name = entry.file_name().to_str().map_err(|_| not_utf8(path))?;
        if !matches!(name, "." | "..") {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Checks that a file did not change between two reads of its metadata.
fn check_unchanged(before: &Stat, after: &Stat, path: &str) -> Result<()> {
    let identity = |stat: &Stat| {
        let times = [(stat.st_mtime, stat.st_mtime_nsec), (stat.st_ctime, stat.st_ctime_nsec)];
        (stat.st_dev, stat.st_ino, stat.st_mode, stat.st_size, times)
    };
    if identity(before) == identity(after) { Ok(()) } else { Err(changed(path)) }
}

fn changed(path: &str) -> Error {
    Error::integrity(format!("/{path} changed while it was being read"))
        .with_hint("build while nothing writes to the directory, or from a copy of it")
}

fn not_utf8(path: &str) -> Error {
    Error::unsupported(format!("/{path}: its name or link target is not UTF-8"))
}

/// The error for a failed system call on a file in the directory.
fn failed(path: &str, operation: &str) -> impl FnOnce(Errno) -> Error {
    let context = format!("/{path}: {operation}");
    move |errno| {
        let error = Error::from(errno).context(context);
        match errno {
            // It existed when its directory was read.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE => {
                error.with_kind(Kind::Integrity).with_note("it changed while the layer was created")
            }
            Errno::ACCESS => error
                .without_hint()
                .with_kind(Kind::Input)
                .with_hint("build from a directory of which you can read every file"),
            _ => error,
        }
    }
}

impl LeftOut {
    pub(crate) fn add(&mut self, other: Self) {
        self.set_id += other.set_id;
        self.devices += other.devices;
        self.attributes += other.attributes;
    }
}
