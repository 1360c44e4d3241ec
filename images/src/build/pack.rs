//! A directory as the archive of a layer. The same tree gives the same bytes, wherever it lies and whoever owns it: entries are sorted by
//! name, belong to 0, and are of one time. What is walked is walked by handle from the root's on; no link is followed, and what changes
//! meanwhile is an error.

use invarlock_error::Context as _;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, open, openat, readlinkat, statat};
use rustix::io::Errno;
use serde::Serialize;

use super::packages::Packages;
use super::tar::Entry;
use crate::archive::DEEPEST;
use crate::attributes::Attributes;
use crate::cursor::directory;
use crate::policy::{Policy, SpecialFilePolicy};
use crate::tree::kind;
use crate::{Error, Progress, Result, attributes};

/// What a name begins with that takes away from the layers below.
const REMOVAL: &str = ".wh.";

/// What of a directory is not in the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LeftOut {
    /// Set-id bits.
    pub set_id: u64,
    /// Devices, fifos and sockets.
    pub devices: u64,
    /// Extended attributes.
    pub attributes: u64,
}

/// How a directory is packed.
#[derive(Clone, Copy)]
pub(crate) struct How<'a> {
    /// The time of everything in it, in seconds since 1970.
    pub time: u64,
    /// There are layers below from which it may take away.
    pub on_top: bool,
    /// Device and inode of the store, which cannot be in an image of its own.
    pub store: (u64, u64),
    pub policy: Policy,
    /// Told how many bytes of files are done.
    pub progress: Progress<'a>,
}

/// Writes the archive of what is in the directory `root`, and notes the packages that are installed there.
pub(crate) fn pack(
    root: &Path,
    how: How<'_>,
    packages: &mut Packages,
    to: &mut dyn Write,
) -> Result<LeftOut> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = open(root, flags, Mode::empty()).map_err(|error| {
        let message = format!("opening it: {error}");
        match error {
            Errno::NOENT | Errno::NOTDIR | Errno::ACCESS => Error::input(message),
            _ => Error::system(message),
        }
    })?;
    let device = fstat(&handle).map_err(failed("", "looking at it"))?.st_dev;
    let mut packer = Packer {
        how,
        device,
        to,
        packages,
        links: HashMap::new(),
        buffer: vec![0; 256 << 10],
        left_out: LeftOut::default(),
    };
    packer.directory(handle.as_fd(), "", 0)?;
    packer.to.write_all(&[0; 1024]).context("writing the layer")?;
    Ok(packer.left_out)
}

struct Packer<'a> {
    how: How<'a>,
    device: u64,
    to: &'a mut dyn Write,
    packages: &'a mut Packages,
    /// Files that have several names, by device and inode.
    links: HashMap<(u64, u64), String>,
    buffer: Vec<u8>,
    left_out: LeftOut,
}

impl Packer<'_> {
    /// What is in a directory, in the order of names.
    fn directory(&mut self, handle: BorrowedFd<'_>, path: &str, depth: usize) -> Result<()> {
        let before = fstat(handle).map_err(failed(path, "looking at it"))?;
        if before.st_dev != self.device {
            return Err(Error::input(format!(
                "/{path}: another file system is mounted there; unmount it, or build from a copy"
            )));
        }
        if (before.st_dev, before.st_ino) == self.how.store {
            return Err(Error::input(format!(
                "/{path}: that is the store itself, which cannot be in an image of its own; set INVARLOCK_STORE to a directory elsewhere"
            )));
        }
        if depth >= DEEPEST {
            return Err(Error::input(format!("/{path}: deeper than {DEEPEST} directories")));
        }
        for name in names(handle, path)? {
            let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            self.entry(handle, &below, &name, depth)?;
        }
        same(&before, &fstat(handle).map_err(failed(path, "looking at it"))?, path)
    }

    fn entry(&mut self, above: BorrowedFd<'_>, path: &str, name: &str, depth: usize) -> Result<()> {
        if name.starts_with(REMOVAL) && !self.how.on_top {
            return Err(Error::input(format!(
                "/{path}: a name that begins with {REMOVAL} takes away from the layers below, and there are none"
            )));
        }
        let stat = statat(above, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(path, "looking at it"))?;
        match kind(&stat) {
            FileType::Directory => {
                let handle = directory(above, name).map_err(failed(path, "opening it"))?;
                same(&stat, &fstat(&handle).map_err(failed(path, "looking at it"))?, path)?;
                let attributes = self.attributes(&handle, path)?;
                let entry = Entry::new(path, self.how.time, self.mode(&stat)).with(attributes);
                self.head(&entry.directory())?;
                self.directory(handle.as_fd(), path, depth + 1)
            }
            FileType::RegularFile => self.file(above, path, name, &stat),
            FileType::Symlink => {
                let target = readlinkat(above, name, Vec::new()).map_err(failed(path, "reading the link"))?;
                let target = target.into_string().map_err(|_| not_utf8(path))?;
                self.head(&Entry::new(path, self.how.time, 0o777).symlink(&target))
            }
            _ if self.how.policy.devices == SpecialFilePolicy::Drop => {
                self.left_out.devices += 1;
                Ok(())
            }
            _ => Err(Error::input(format!(
                "/{path}: a device, fifo or socket, which no image of ours has; remove it, or leave such things out with --drop-devices"
            ))),
        }
    }

    fn file(&mut self, above: BorrowedFd<'_>, path: &str, name: &str, stat: &Stat) -> Result<()> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let entry = Entry::new(path, self.how.time, bare(stat)).hardlink(first);
                return entry.write(self.to).context("writing the layer");
            }
            self.links.insert(key, path.to_owned());
        }
        // A fifo that came here meanwhile must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let handle = openat(above, name, flags, Mode::empty()).map_err(failed(path, "opening it"))?;
        same(stat, &fstat(&handle).map_err(failed(path, "looking at it"))?, path)?;
        let size = stat.st_size.unsigned_abs();
        let attributes = self.attributes(&handle, path)?;
        let entry = Entry::new(path, self.how.time, self.mode(stat)).with(attributes);
        self.head(&entry.file(size))?;
        let mut noted = self.packages.look_at(path, size).then(Vec::new);
        let mut file = File::from(handle);
        let mut left = size;
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(&mut self.buffer[..most]).context(format!("reading /{path}"))?;
            if count == 0 {
                return Err(changed(path));
            }
            self.to.write_all(&self.buffer[..count]).context("writing the layer")?;
            if let Some(noted) = &mut noted {
                noted.extend_from_slice(&self.buffer[..count]);
            }
            left -= count as u64;
            (self.how.progress)(count as u64);
        }
        same(stat, &fstat(&file).map_err(failed(path, "looking at it"))?, path)?;
        let padding = usize::try_from((512 - size % 512) % 512).unwrap_or_default();
        self.to.write_all(&[0; 512][..padding]).context("writing the layer")?;
        if let Some(noted) = noted {
            self.packages.note(path, &noted);
        }
        Ok(())
    }

    fn head(&mut self, entry: &Entry<'_>) -> Result<()> {
        entry.write(self.to).context("writing the layer")
    }

    /// The mode without set-id bits, which are counted.
    fn mode(&mut self, stat: &Stat) -> u32 {
        self.left_out.set_id += u64::from(stat.st_mode & 0o6000 != 0);
        bare(stat)
    }

    fn attributes(&mut self, of: impl AsFd, path: &str) -> Result<Attributes> {
        let (kept, dropped) = attributes::read(of).map_err(failed(path, "reading extended attributes"))?;
        self.left_out.attributes += dropped;
        Ok(kept)
    }
}

/// The mode without set-id bits, and without leave for others to write, whatever the umask was that files were made under; but where
/// everybody may leave things, as in `/tmp`, that stays.
fn bare(stat: &Stat) -> u32 {
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

/// Whether nothing was done to it between two looks.
fn same(before: &Stat, after: &Stat, path: &str) -> Result<()> {
    let all = |it: &Stat| {
        let times = [(it.st_mtime, it.st_mtime_nsec), (it.st_ctime, it.st_ctime_nsec)];
        (it.st_dev, it.st_ino, it.st_mode, it.st_size, times)
    };
    if all(before) == all(after) { Ok(()) } else { Err(changed(path)) }
}

fn changed(path: &str) -> Error {
    Error::integrity(format!("/{path} changed while it was being read"))
        .with_hint("build while nothing writes to the directory, or from a copy of it")
}

fn not_utf8(path: &str) -> Error {
    Error::unsupported(format!("/{path}: a name, or a link's target, that is not UTF-8"))
}

fn failed(path: &str, doing: &str) -> impl FnOnce(Errno) -> Error {
    let doing = format!("/{path}: {doing}");
    move |error| match error {
        // It was there when its directory was read.
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE => {
            Error::integrity(format!("{doing}: {error}: it changed while it was packed"))
        }
        Errno::ACCESS => Error::input(format!("{doing}: {error}; pack a directory that you can read all of")),
        _ => Error::system(format!("{doing}: {error}")),
    }
}

impl LeftOut {
    pub(super) fn add(&mut self, other: Self) {
        self.set_id += other.set_id;
        self.devices += other.devices;
        self.attributes += other.attributes;
    }
}
