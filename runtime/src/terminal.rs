//! The terminal of a container: a pty of a devpts of its own, so its programs cannot open a terminal of the host.

use crate::identity::IdsInside;
use crate::mounts;
use invarlock_error::{Context as _, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::{Termios, Winsize};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};

/// Entries of `/dev` that a container has only with a terminal.
pub(crate) const DEVICE: (&str, &str) = ("tty", "5:0");
pub(crate) const MULTIPLEXER: &str = "ptmx";
pub(crate) const DIRECTORY: &str = "pts";
/// What the workload's descriptors of it are called.
pub(crate) const PATH: &str = "/dev/pts/0";
/// The options of its mount.
pub(crate) const OPTIONS: &[&str] = &["ro", "nosuid", "noexec"];
/// Most terminals of a container. The kernel has 4096 for the whole machine.
const MAX: u32 = 64;

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    rows: u16,
    columns: u16,
}

impl Size {
    pub(crate) fn of(terminal: impl AsFd) -> rustix::io::Result<Self> {
        let size = rustix::termios::tcgetwinsize(terminal)?;
        Ok(Size { rows: size.ws_row, columns: size.ws_col })
    }

    pub(crate) fn set(self, terminal: impl AsFd) -> rustix::io::Result<()> {
        let size = Winsize { ws_row: self.rows, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size)
    }
}

/// The attributes of a terminal that passes on every key and all output unchanged.
pub(crate) fn raw(before: &Termios) -> Termios {
    let mut raw = before.clone();
    raw.make_raw();
    raw
}

/// Whether a terminal that had the attributes `before` is raw now.
pub(crate) fn is_raw(now: &Termios, before: &Termios) -> bool {
    let modes = |of: &Termios| (of.input_modes, of.output_modes, of.local_modes);
    modes(now) == modes(&raw(before))
}

/// Both ends of a pty.
pub(crate) struct Pty {
    /// For the launcher.
    pub(crate) master: OwnedFd,
    /// The workload's standard streams.
    pub(crate) slave: OwnedFd,
}

const DOING: &str = "creating the terminal of the container";

/// Mounts a new devpts at `pts` of `dev`, which is at `path`. Its terminals belong to the workload.
pub(crate) fn mount(dev: &OwnedFd, path: &str, inside: IdsInside) -> Result<()> {
    // The mount is read-only: attributes and names of terminals cannot be changed, and they can be written all the same.
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let options = [
        ("mode", "0620".to_owned()),
        ("ptmxmode", "0666".to_owned()),
        ("uid", inside.uid.to_string()),
        ("gid", inside.gid.to_string()),
        ("max", MAX.to_string()),
    ];
    let mount = mounts::filesystem("devpts", &options, attributes)?;
    rustix::fs::mkdirat(dev, DIRECTORY, Mode::from_raw_mode(0o755)).context(DOING)?;
    mounts::attach_at(&mount, &format!("{path}/{DIRECTORY}")).context(DOING)
}

/// Creates a pty in the devpts, which must be at its final place: descriptors keep the name that a file had when it was opened.
pub(crate) fn create(size: Size) -> Result<Pty> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("/dev/{DIRECTORY}/{MULTIPLEXER}");
    let master = rustix::fs::open(path, flags, Mode::empty()).context(DOING)?;
    rustix::pty::unlockpt(&master).context(DOING)?;
    // The kernel would keep a flag CLOEXEC in the open file, and report it for the workload's descriptors.
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY);
    let slave = slave.context(DOING)?;
    rustix::io::fcntl_setfd(&slave, FdFlags::CLOEXEC).context(DOING)?;
    size.set(&master).context(DOING)?;
    Ok(Pty { master, slave })
}
