//! A character device of the host that can be mounted in a container. It is opened once; what is checked is what the handle names.

use crate::boundary::{DEVICES, LINKS, SHARED_MEMORY};
use crate::terminal;
use invarlock_error::{Context as _, Error, Kind, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, major, minor};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// Major number of the memory of the machine, and of the devices that every container has.
const MEMORY: u32 = 1;
/// Major numbers of terminals, in which other programs type.
const TERMINALS: [u32; 10] = [4, 5, 136, 137, 138, 139, 140, 141, 142, 143];

/// An opened character device of the host.
#[derive(Debug)]
pub struct DeviceSource {
    /// Its path, without links.
    pub(crate) path: PathBuf,
    pub(crate) handle: OwnedFd,
    /// Major and minor number.
    pub(crate) numbers: String,
}

impl DeviceSource {
    /// Opens it without using it; links are followed. Refused are other types of files, files outside `/dev`, memory, and terminals.
    ///
    /// # Errors
    /// It is missing or refused.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("opening the device {}", path.display());
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let handle = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
            .with_context(doing)
            .map_err(|error| error.with_kind(Kind::Input))?;
        let stat = rustix::fs::fstat(&handle).with_context(doing)?;
        let refuse = |why: &str| {
            Err(Error::input(format!("device {} {why}", path.display()))
                .with_hint("a container can have character devices of accelerators only"))
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice {
            return refuse("is not a character device");
        }
        let high = major(stat.st_rdev);
        let numbers = format!("{high}:{}", minor(stat.st_rdev));
        if high == MEMORY && !DEVICES.iter().any(|(_, harmless)| *harmless == numbers) {
            return refuse("is memory of the machine");
        }
        if TERMINALS.contains(&high) {
            return refuse("is a terminal of the host");
        }
        let real = std::fs::read_link(format!("/proc/self/fd/{}", handle.as_raw_fd())).with_context(doing)?;
        if !real.starts_with("/dev") {
            return refuse("is not in /dev");
        }
        Ok(Self { path: real, handle, numbers })
    }

    /// Another handle of the same device.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let handle = self.handle.try_clone().context("duplicating the handle of a device")?;
        Ok(Self { path: self.path.clone(), handle, numbers: self.numbers.clone() })
    }

    /// Its path, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Major and minor number.
    pub fn numbers(&self) -> &str {
        &self.numbers
    }
}

/// Whether an entry of `/dev` belongs to the container.
pub(crate) fn is_taken(name: &str) -> bool {
    let own =
        [SHARED_MEMORY, terminal::DEVICE.0, terminal::MULTIPLEXER, terminal::DIRECTORY, "console", "mqueue"];
    own.contains(&name) || LINKS.contains(&name) || DEVICES.iter().any(|(device, _)| *device == name)
}
