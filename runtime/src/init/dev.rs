//! `/dev` of the container.

use crate::boundary::{DEVICES, LINKS, SHARED_MEMORY};
use crate::terminal::{self, DIRECTORY, MULTIPLEXER};
use crate::{hooks, mounts};
use invarlock_error::{Context as _, Result, bail};
use rustix::mount::UnmountFlags;

const CLEARING: &str = "removing unneeded entries";

/// Removes everything but the five devices that programs need, and makes `/dev` read-only. With `runtime_files`, the links to open files and
/// the directory for shared memory stay; the latter stays writable. With a `terminal`, its entries stay. So do the entries `devices`, which the caller mounted.
pub(super) fn clear(runtime_files: bool, terminal: bool, devices: &[String]) -> Result<()> {
    let entries = match hooks::off("five devices") {
        true => None,
        false => Some(std::fs::read_dir("/dev").context(CLEARING)?),
    };
    for entry in entries.into_iter().flatten() {
        let entry = entry.context(CLEARING)?;
        let name = entry.file_name();
        if DEVICES.iter().any(|(device, _)| name == *device)
            || runtime_files && (name == SHARED_MEMORY || LINKS.iter().any(|link| name == *link))
            || devices.iter().any(|device| name == device.as_str())
            || terminal && [terminal::DEVICE.0, MULTIPLEXER, DIRECTORY].iter().any(|entry| name == *entry)
        {
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
    let open = |path: &str| {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open(path, flags, rustix::fs::Mode::empty()).context("opening it")
    };
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    if !runtime_files {
        return mounts::restrict_recursively(&open("/dev")?, attributes).context("making it read-only");
    }
    let devices = DEVICES.into_iter().chain(terminal.then_some(terminal::DEVICE));
    let devices = devices.map(|(name, _)| format!("/dev/{name}"));
    for path in devices.chain(["/dev".to_owned()]) {
        mounts::restrict(&open(&path)?, attributes).with_context(|| format!("making {path} read-only"))?;
    }
    Ok(())
}
