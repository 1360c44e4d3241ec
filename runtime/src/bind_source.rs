//! A file or directory of the host that can be mounted in a container. It is opened once; what is checked is what the handle names, and the
//! mount is a clone at that handle.

use crate::procfs;
use invarlock_error::{Context as _, Error, Kind, Result};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Directories whose files are interfaces of the kernel.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];
/// A directory of `/dev` that is ordinary memory.
const SHARED_MEMORY: &str = "/dev/shm";
/// The types of file systems whose files are interfaces of the kernel, wherever they are mounted: proc, sysfs, cgroup, cgroup2, devpts,
/// debugfs, tracefs, securityfs, configfs, bpf, pstore, efivarfs, mqueue, nsfs, selinuxfs.
const KERNEL_TYPES: [u32; 15] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
    0xcafe_4a11,
    0x6165_676c,
    0xde5e_81e4,
    0x1980_0202,
    0x6e73_6673,
    0xf97c_ff8c,
];
/// Entries of a directory that are searched for sockets and fifos.
const MAX_SEARCHED: usize = 200_000;

/// An opened file or directory of the host.
#[derive(Debug)]
pub struct BindSource {
    /// Its path, without links.
    pub(crate) path: PathBuf,
    pub(crate) handle: OwnedFd,
    pub(crate) is_directory: bool,
}

impl BindSource {
    /// Opens it; links are followed. Refused are the root, what belongs to the kernel, what is not a file or directory, a directory with
    /// sockets, with fifos or with other mounts below it.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let opened = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
        Self::of(opened.map_err(|errno| not_opened(path, errno))?, path)
    }

    /// The same for a path below a directory: no link is followed, and the path does not leave the directory. `shown` is the path in messages.
    pub fn open_below(directory: impl AsFd, path: &Path, shown: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let is_link = |handle: &OwnedFd| {
            rustix::fs::fstat(handle)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
        };
        let opened = match rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve) {
            Ok(handle) if is_link(&handle) => Err(Errno::LOOP),
            other => other,
        };
        let handle = opened.map_err(|errno| match errno {
            Errno::LOOP | Errno::XDEV => {
                let error = Error::from(errno).context(format_args!("opening {}", shown.display()));
                error
                    .with_kind(Kind::Safety)
                    .with_hint("name it by a path without links that stays in the bundle")
            }
            errno => not_opened(shown, errno),
        })?;
        Self::of(handle, shown)
    }

    /// Another handle of the same file or directory.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let handle = self.handle.try_clone().context("duplicating the handle of a mount")?;
        Ok(Self { path: self.path.clone(), handle, is_directory: self.is_directory })
    }

    fn of(handle: OwnedFd, path: &Path) -> Result<Self> {
        let doing = || format!("reading the attributes of mount source {}", path.display());
        let stat = rustix::fs::fstat(&handle).with_context(doing)?;
        let is_directory = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => true,
            FileType::RegularFile => false,
            other => {
                let what = format!("is a {}", kind_name(other));
                return Err(refused(path, &what, "mount a regular file or a directory"));
            }
        };
        let real = std::fs::read_link(format!("/proc/self/fd/{}", handle.as_raw_fd())).with_context(doing)?;
        let source = BindSource { path: real, handle, is_directory };
        source.check_place(path)?;
        if is_directory {
            source.check_mounts(path)?;
            source.check_sockets(path)?;
        }
        Ok(source)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// Its path, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is `directory`, or contains it. The directories are compared by their identity, because one can have several paths.
    pub fn contains(&self, directory: &Path) -> Result<bool> {
        let doing = || format!("comparing {} with {}", self.path.display(), directory.display());
        let own = identity(&rustix::fs::fstat(&self.handle).with_context(doing)?);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let mut at = match rustix::fs::open(directory, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.with_context(doing)?,
        };
        loop {
            let here = identity(&rustix::fs::fstat(&at).with_context(doing)?);
            if here == own {
                return Ok(true);
            }
            let parent = rustix::fs::openat(&at, "..", flags | OFlags::DIRECTORY, Mode::empty());
            let parent = match parent {
                // A file: its directory has to be found by its path.
                Err(Errno::NOTDIR) => {
                    let directory = directory.parent().unwrap_or_else(|| Path::new("/"));
                    rustix::fs::open(directory, flags, Mode::empty()).with_context(doing)?
                }
                other => other.with_context(doing)?,
            };
            if identity(&rustix::fs::fstat(&parent).with_context(doing)?) == here {
                return Ok(false);
            }
            at = parent;
        }
    }

    /// Whether it is in `directory`, or is it.
    pub fn is_in(&self, directory: &Path) -> bool {
        directory.canonicalize().is_ok_and(|directory| self.path.starts_with(directory))
    }

    fn check_place(&self, path: &Path) -> Result<()> {
        if self.path == Path::new("/") {
            return Err(refused(path, "is the root of this machine", "mount the directory that is needed"));
        }
        let kind = rustix::fs::fstatfs(&self.handle)
            .with_context(|| format!("reading the file system of mount source {}", path.display()))?
            .f_type;
        if KERNEL_TYPES.contains(&(kind as u32)) {
            return Err(refused(
                path,
                "is in a file system of the kernel, such as /proc or /sys",
                "mount a directory of an ordinary file system",
            ));
        }
        let of_kernel = KERNEL.iter().find(|directory| self.path.starts_with(directory));
        let in_memory = self.path.starts_with(SHARED_MEMORY) && self.path != Path::new(SHARED_MEMORY);
        match of_kernel {
            Some(directory) if !in_memory => {
                let what = format!("is in {directory}, which belongs to the kernel");
                Err(refused(path, &what, "mount a directory of an ordinary file system"))
            }
            _ => Ok(()),
        }
    }

    /// A mount below the source would be missing in the container, and what it covers would be there instead.
    fn check_mounts(&self, path: &Path) -> Result<()> {
        let table = procfs::read("/proc/self/mountinfo").context("reading the mount table")?;
        let targets = table.lines().filter_map(|line| line.split(' ').nth(4)).map(procfs::unescape);
        let below =
            |target: &String| Path::new(target).starts_with(&self.path) && Path::new(target) != self.path;
        match targets.into_iter().find(below) {
            Some(target) => Err(refused(
                path,
                &format!("has another mount below it: {target}"),
                "mount the two directories one by one, or a directory without other mounts",
            )),
            None => Ok(()),
        }
    }

    /// A program of the container could connect to a socket of the host, or write to a fifo, whether or not the mount is read-only.
    fn check_sockets(&self, path: &Path) -> Result<()> {
        let mut searched = 0;
        let mut rest = vec![PathBuf::from(".")];
        while let Some(directory) = rest.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(&self.handle, &directory, flags, Mode::empty());
            // The container cannot read either what this program cannot.
            let Ok(entries) = opened.and_then(Dir::new) else { continue };
            for entry in entries.flatten() {
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                let below = directory.join(name);
                match self.kind(&below, entry.file_type()) {
                    kind @ (FileType::Socket | FileType::Fifo) => {
                        let found = self.path.join(below.strip_prefix(".").unwrap_or(&below));
                        return Err(refused(
                            path,
                            &format!("contains a {}: {}", kind_name(kind), found.display()),
                            "mount a directory without it: a program in the container could use it",
                        ));
                    }
                    FileType::Directory => rest.push(below),
                    _ => {}
                }
                searched += 1;
                if searched == MAX_SEARCHED {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Some file systems do not tell it with the name.
    fn kind(&self, path: &Path, told: FileType) -> FileType {
        if told != FileType::Unknown {
            return told;
        }
        let stat = rustix::fs::statat(&self.handle, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "socket",
        FileType::Fifo => "fifo",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "special file",
    }
}

fn refused(path: &Path, what: &str, hint: &str) -> Error {
    Error::input(format!("mount source {} {what}", path.display())).with_hint(hint.to_owned())
}

fn not_opened(path: &Path, errno: Errno) -> Error {
    let error = Error::from(errno).context(format_args!("opening mount source {}", path.display()));
    let error = error.with_kind(Kind::Input);
    match errno {
        Errno::NOENT => error.with_hint("create it first: it is not created here"),
        Errno::LOOP => error.with_hint("name it by a path that does not lead through /proc"),
        _ => error,
    }
}
