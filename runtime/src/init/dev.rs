//! `/dev` of the container.

use crate::boundary::DEVICES;
use crate::{hooks, mounts};
use invarlock_error::{Context as _, Result, bail};
use rustix::mount::UnmountFlags;

const CLEARING: &str = "removing unneeded entries";

/// Removes everything but the five devices that programs need, and makes `/dev` read-only.
pub(super) fn clear() -> Result<()> {
    let entries = match hooks::off("five devices") {
        true => None,
        false => Some(std::fs::read_dir("/dev").context(CLEARING)?),
    };
    for entry in entries.into_iter().flatten() {
        let entry = entry.context(CLEARING)?;
        if DEVICES.iter().any(|(name, _)| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path();
        if entry.file_type().context(CLEARING)?.is_dir() {
            bail!(Integrity, "{CLEARING}: unexpected directory {}", path.display());
        }
        // Not every entry is a mount.
        _ = rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        std::fs::remove_file(&path).context(CLEARING)?;
    }
    if hooks::off("closed /dev") {
        return Ok(());
    }
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let dev = rustix::fs::open("/dev", flags, rustix::fs::Mode::empty()).context("opening it")?;
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    mounts::restrict_recursively(&dev, attributes).context("making it read-only")
}
