//! Mounts that the caller adds to a container: files and directories of the host (binds), and directories in memory. Measurements have only
//! those of devices.
//!
//! A bind is a clone of the mount at the handle that the launcher opened, without the mounts below it. Its place in the container is a plain
//! path: no link of the image, or of another bind, is followed.

use crate::bind_source::BindSource;
use crate::boundary::TMP_INODES;
use crate::device_source::{self, DeviceSource};
use crate::identity::IdsInside;
use crate::mounts;
use invarlock_error::{Context as _, Error, Kind, Result};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Longest target.
const MAX_TARGET: usize = 1024;
/// Directories of the container that no mount can replace or be below.
const RESERVED: [&str; 5] = ["/dev", "/in", "/out", "/proc", "/sys"];
/// Writable directories that every container has. A directory in memory can replace the last two.
const SCRATCH: [&str; 3] = ["/tmp", "/run", "/var/tmp"];

/// A mount that the caller adds.
#[derive(Debug)]
pub struct Mount {
    /// Its path in the container.
    pub target: String,
    /// What is mounted.
    pub source: MountSource,
}

impl Mount {
    /// Another handle of the same mount.
    ///
    /// # Errors
    /// The process has too many open files.
    pub fn try_clone(&self) -> Result<Self> {
        let source = match &self.source {
            MountSource::Bind { source, writable } => {
                MountSource::Bind { source: source.try_clone()?, writable: *writable }
            }
            MountSource::Device(device) => MountSource::Device(device.try_clone()?),
            MountSource::Tmpfs { bytes } => MountSource::Tmpfs { bytes: *bytes },
        };
        Ok(Self { target: self.target.clone(), source })
    }

    /// The mount in a plan.
    pub(crate) fn describe(&self) -> Value {
        let options = options(self.is_device(), self.is_writable());
        let target = &self.target;
        match &self.source {
            MountSource::Bind { source, .. } => {
                json!({"target": target, "kind": "bind", "source": source.path, "options": options})
            }
            MountSource::Device(device) => {
                json!({"target": target, "kind": "device", "source": device.path, "options": options})
            }
            MountSource::Tmpfs { bytes } => {
                json!({"target": target, "kind": "tmpfs", "bytes": bytes, "options": options})
            }
        }
    }

    pub(crate) fn is_device(&self) -> bool {
        matches!(self.source, MountSource::Device(_))
    }

    /// Whether the container can write in it; using a device is not that.
    pub(crate) fn is_writable(&self) -> bool {
        match self.source {
            MountSource::Bind { writable, .. } => writable,
            MountSource::Device(_) => false,
            MountSource::Tmpfs { .. } => true,
        }
    }
}

/// The options that a mount has in the container.
fn options(device: bool, writable: bool) -> &'static [&'static str] {
    match (device, writable) {
        (true, _) => &["ro", "nosuid", "noexec"],
        (false, true) => &["rw", "nosuid", "nodev", "noexec"],
        (false, false) => &["ro", "nosuid", "nodev"],
    }
}

/// What is mounted.
#[derive(Debug)]
pub enum MountSource {
    /// A file or directory of the host. In a run by root, its owner is mapped to the user of the container.
    Bind {
        /// The file or directory.
        source: BindSource,
        /// Whether the container can write it. It cannot execute files of it then.
        writable: bool,
    },
    /// A character device of the host. The container uses it with the rights that its owner and mode give.
    Device(DeviceSource),
    /// An empty directory in memory of at most this many bytes.
    Tmpfs {
        /// Its size, at least [`crate::Limits::min_directory_bytes`].
        bytes: u64,
    },
}

/// A mount as the launcher requests it. Binds come with a descriptor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RequestMount {
    pub(crate) target: String,
    pub(crate) kind: MountKind,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum MountKind {
    Bind { path: PathBuf, writable: bool, is_directory: bool },
    Device { path: PathBuf, numbers: String },
    Tmpfs { bytes: u64 },
}

/// The file that is expected at the target of a bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpectedFile {
    pub(crate) target: String,
    device: u64,
    inode: u64,
}

impl ExpectedFile {
    pub(crate) fn is(&self, found: &Stat) -> bool {
        (self.device, self.inode) == (found.st_dev, found.st_ino)
    }
}

impl RequestMount {
    /// The mount as it is sent to the supervisor, and its descriptor.
    pub(crate) fn of(mount: Mount) -> (Self, Option<OwnedFd>) {
        let target = mount.target;
        match mount.source {
            MountSource::Tmpfs { bytes } => (RequestMount { target, kind: MountKind::Tmpfs { bytes } }, None),
            MountSource::Device(DeviceSource { path, handle, numbers }) => {
                (RequestMount { target, kind: MountKind::Device { path, numbers } }, Some(handle))
            }
            MountSource::Bind { source, writable } => {
                let BindSource { path, handle, is_directory } = source;
                let kind = MountKind::Bind { path, writable, is_directory };
                (RequestMount { target, kind }, Some(handle))
            }
        }
    }

    fn is_directory(&self) -> bool {
        match self.kind {
            MountKind::Bind { is_directory, .. } => is_directory,
            MountKind::Device { .. } => false,
            MountKind::Tmpfs { .. } => true,
        }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.kind {
            MountKind::Bind { path, .. } | MountKind::Device { path, .. } => Some(path),
            MountKind::Tmpfs { .. } => None,
        }
    }

    pub(crate) fn is_writable(&self) -> bool {
        match self.kind {
            MountKind::Bind { writable, .. } => writable,
            MountKind::Device { .. } => false,
            MountKind::Tmpfs { .. } => true,
        }
    }

    /// The entry of `/dev`, and the major and minor number, of a device.
    pub(crate) fn device(&self) -> Option<(&str, &str)> {
        match &self.kind {
            MountKind::Device { numbers, .. } => Some((self.target.strip_prefix("/dev/")?, numbers)),
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } => None,
        }
    }

    /// The attributes of the mount of a bind.
    pub(crate) fn attributes(&self) -> u64 {
        match self.kind {
            MountKind::Device { .. } => {
                libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC
            }
            _ if self.is_writable() => mounts::scratch(),
            _ => mounts::layer(),
        }
    }

    /// The options that it has in the container.
    pub(crate) fn options(&self) -> &'static [&'static str] {
        options(self.device().is_some(), self.is_writable())
    }

    /// Whether its place can be in the image; a place below a writable directory of the container is created there.
    fn is_in_image(&self) -> bool {
        self.device().is_none() && !SCRATCH.iter().any(|directory| is_at_or_below(&self.target, directory))
    }

    /// Whether the image has a file of its kind at its place, or needs none.
    pub(crate) fn has_place_in(&self, image: &OwnedFd) -> bool {
        !self.is_in_image()
            || open_at(image, self.target.trim_start_matches('/'), OFlags::PATH)
                .and_then(rustix::fs::fstat)
                .is_ok_and(|stat| self.fits(&stat))
    }

    fn fits(&self, stat: &Stat) -> bool {
        self.is_directory() == (FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }
}

/// The binds of a request.
pub(crate) fn binds(mounts: &[RequestMount]) -> impl Iterator<Item = &RequestMount> {
    mounts.iter().filter(|mount| mount.path().is_some())
}

/// The files that are expected at the targets of the binds.
pub(crate) fn expected(mounts: &[RequestMount], handles: &[OwnedFd]) -> Result<Vec<ExpectedFile>> {
    let expect = |(mount, handle): (&RequestMount, &OwnedFd)| {
        let stat = rustix::fs::fstat(handle.as_fd())
            .with_context(|| format!("reading the attributes of mount {}", mount.target))?;
        Ok(ExpectedFile { target: mount.target.clone(), device: stat.st_dev, inode: stat.st_ino })
    };
    binds(mounts).zip(handles).map(expect).collect()
}

/// Rejects targets that can never work.
pub(crate) fn check(mounts: &[Mount]) -> Result<()> {
    let mut targets = BTreeSet::new();
    for mount in mounts {
        let target = mount.target.as_str();
        let bad = |why: &str, hint: &str| {
            Err(Error::input(format!("mount target {target:?} {why}")).with_hint(hint.to_owned()))
        };
        if !is_plain(target) {
            return bad(
                "is not a plain path",
                "use an absolute path without `.`, `..`, empty parts and control characters, and not the root",
            );
        }
        if mount.is_device() {
            let entry = target.strip_prefix("/dev/").unwrap_or_default();
            let taken = device_source::is_taken(entry.split('/').next().unwrap_or_default());
            if entry.is_empty() || taken {
                return bad(
                    "is no place for a device",
                    "use a name in /dev that the container does not have",
                );
            }
        } else if let Some(reserved) = RESERVED.iter().find(|reserved| is_at_or_below(target, reserved)) {
            let hint = match *reserved {
                "/in" => "use another target, or --input",
                "/out" => "use another target, or --output",
                _ => "use another target",
            };
            return bad(&format!("is in {reserved}, which belongs to the container"), hint);
        }
        let is_bind = matches!(mount.source, MountSource::Bind { .. });
        if target == SCRATCH[0] || is_bind && SCRATCH.contains(&target) {
            return bad("is a writable directory of the container", "use a target below it, or another one");
        }
        if !targets.insert(target) {
            return bad("is the target of two mounts", "use one target for each mount");
        }
    }
    Ok(())
}

/// An absolute path in which no part is empty, `.` or `..`, too long, or has a control character.
fn is_plain(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
    path.len() <= MAX_TARGET
        && !path.contains(char::is_control)
        && path.strip_prefix('/').is_some_and(|path| path.split('/').all(plain))
}

fn is_at_or_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Creates the places of mounts in the lowest layer of the image.
pub(crate) fn create_places(at: &Path, mounts: &[RequestMount]) -> Result<()> {
    // Parents come first.
    for mount in sorted(mounts).into_iter().filter(|mount| mount.is_in_image()) {
        let doing = || format!("creating {} for a mount", mount.target);
        let path = at.join(mount.target.trim_start_matches('/'));
        if mount.is_directory() {
            fs::create_dir_all(&path).with_context(doing).kind(Kind::Input)?;
        } else {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).with_context(doing).kind(Kind::Input)?;
            }
            File::create(&path).with_context(doing).kind(Kind::Input)?;
        }
    }
    Ok(())
}

fn sorted(mounts: &[RequestMount]) -> Vec<&RequestMount> {
    let mut sorted: Vec<_> = mounts.iter().collect();
    sorted.sort_by(|one, other| one.target.cmp(&other.target));
    sorted
}

/// Attaches all mounts below the root of the container. `handles`: detached mounts of the binds.
pub(crate) fn attach(
    requested: &[RequestMount],
    handles: Vec<OwnedFd>,
    root: &OwnedFd,
    inside: IdsInside,
) -> Result<()> {
    let mut handles = handles.into_iter();
    let mut made = Vec::new();
    for mount in requested {
        let handle = match mount.kind {
            MountKind::Tmpfs { bytes } => tmpfs(bytes, inside)?,
            MountKind::Bind { .. } | MountKind::Device { .. } => {
                handles.next().ok_or_else(|| Error::system("a mount came without its descriptor"))?
            }
        };
        made.push((mount, handle));
    }
    made.sort_by(|(one, _), (other, _)| one.target.cmp(&other.target));
    for (mount, handle) in &made {
        let in_bind = binds(requested)
            .any(|bind| bind.target != mount.target && is_at_or_below(&mount.target, &bind.target));
        let place = place(root, mount, !in_bind)?;
        mounts::attach(handle, &place).with_context(|| format!("mounting {}", mount.target))?;
    }
    Ok(())
}

fn tmpfs(bytes: u64, inside: IdsInside) -> Result<OwnedFd> {
    let options = [
        ("size", bytes.to_string()),
        ("nr_inodes", TMP_INODES.to_string()),
        ("mode", "1777".to_owned()),
        ("uid", inside.uid.to_string()),
        ("gid", inside.gid.to_string()),
    ];
    mounts::tmpfs(&options, mounts::scratch())
}

/// The file or directory that a mount covers. What is missing is created, unless that would be in a bind and so on the host.
fn place(root: &OwnedFd, mount: &RequestMount, create: bool) -> Result<OwnedFd> {
    let target = mount.target.as_str();
    let parts: Vec<&str> = target.trim_start_matches('/').split('/').collect();
    let mut at = rustix::io::fcntl_dupfd_cloexec(root, 3).context("duplicating a handle")?;
    for (i, part) in parts.iter().enumerate() {
        let directory = i + 1 < parts.len() || mount.is_directory();
        at = match open_at(&at, part, OFlags::PATH) {
            Err(Errno::NOENT) if create => {
                make(&at, part, directory).with_context(|| format!("creating {target} for a mount"))?
            }
            Err(Errno::NOENT) => {
                return Err(Error::input(format!(
                    "mount target {target}: {part} does not exist in the mount that contains it"
                ))
                .with_hint("create it there, or use another target"));
            }
            Err(Errno::LOOP) => return Err(unfit(target, part, "a symbolic link")),
            other => other.with_context(|| format!("opening the mount target {target}"))?,
        };
        let stat = rustix::fs::fstat(&at).with_context(|| format!("opening the mount target {target}"))?;
        match (directory, FileType::from_raw_mode(stat.st_mode)) {
            (true, FileType::Directory) | (false, FileType::RegularFile) => {}
            (_, FileType::Symlink) => return Err(unfit(target, part, "a symbolic link")),
            (true, _) => return Err(unfit(target, part, "not a directory, but the source is one")),
            (false, FileType::Directory) => {
                return Err(unfit(target, part, "a directory, but the source is a file"));
            }
            (false, _) => return Err(unfit(target, part, "not a regular file")),
        }
    }
    Ok(at)
}

fn unfit(target: &str, part: &str, what: &str) -> Error {
    Error::input(format!("mount target {target}: {part:?} is {what}")).with_hint(
        "use another target; one that leads through a link of the image must be written without the link",
    )
}

fn open_at(at: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(at, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn make(at: &OwnedFd, name: &str, directory: bool) -> rustix::io::Result<OwnedFd> {
    if directory {
        rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755))?;
    } else {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        drop(rustix::fs::openat(at, name, flags, Mode::from_raw_mode(0o644))?);
    }
    open_at(at, name, OFlags::PATH)
}
