//! Starts the supervisor from an executable that no process in a container can modify.
//!
//! `/proc/<pid>/exe` of a process in a container leads back to the file that it was started from (CVE-2019-5736). The supervisor, whose
//! copies are builder and init, is therefore never started from that file itself, but through a read-only mount of the file that is in no
//! mount namespace. Where there is no such mount, for example after the file was replaced, it is started from a sealed memfd copy. In
//! addition, init is not dumpable, so it cannot be inspected from inside.

use crate::failure::SystemCall as _;
use crate::{hints, hooks, mounts, seal, sys};
use invarlock_error::{Context as _, Error, Result};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// `argv[0]` of the supervisor.
pub(crate) const SUPERVISOR: &str = "invarlock-supervisor";

/// This program's file.
const OWN: &str = "/proc/self/exe";

/// The sealed copy: created once a process, and kept by its descriptor.
static SEALED: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Fails in a program that was started with more rights than its caller has.
pub(crate) fn reject_elevated() -> Result<()> {
    match sys::is_secure_execution() {
        true => Err(Error::safety("this program is set-uid or has file capabilities")
            .with_hint("remove the set-uid bit and the file capabilities")),
        false => Ok(()),
    }
}

/// Starts a supervisor whose standard input is its end of the socket.
pub(crate) fn spawn(socket: UnixStream) -> Result<Child> {
    reject_elevated()?;
    if let Some(mount) = read_only_mount() {
        // Then the descriptor is closed. The mount is in no namespace any more, so not even root can change it.
        return start(&mount, socket);
    }
    let mut sealed = SEALED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let copy = match sealed.take() {
        Some(fd) => sealed.insert(fd),
        None => sealed.insert(sealed_copy()?),
    };
    start(copy, socket)
}

fn start(executable: &OwnedFd, socket: UnixStream) -> Result<Child> {
    let path = format!("/proc/self/fd/{}", executable.as_raw_fd());
    let mut command = Command::new(path);
    if !hooks::off("environment") {
        command.env_clear();
    }
    command
        .arg0(SUPERVISOR)
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .or_no_process(|| "starting the supervisor".into())
}

/// How [`spawn`] protects the executable on this machine.
pub(crate) fn protection() -> Result<&'static str> {
    match read_only_mount() {
        Some(_) => Ok("a read-only mount of this program"),
        None => sealed_copy().map(|_| "a sealed copy of this program in memory"),
    }
}

/// The executable through a new read-only mount. The mount is in no namespace once this descriptor is closed, and the kernel changes only
/// mounts that are in one. Root makes it by itself, other users in new namespaces, in which they may mount.
fn read_only_mount() -> Option<OwnedFd> {
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
    if rustix::process::geteuid().is_root() {
        let mount = mounts::clone_path(OWN, false).ok()?;
        mounts::restrict(&mount, attributes).ok()?;
        return Some(mount);
    }
    let path = std::env::current_exe().ok()?;
    let path = CString::new(path.into_os_string().into_vec()).ok()?;
    let mount = sys::clone_mount_as_user(&path, attributes).ok()?;
    let (mounted, own) = (rustix::fs::fstat(&mount).ok()?, rustix::fs::stat(OWN).ok()?);
    ((mounted.st_dev, mounted.st_ino) == (own.st_dev, own.st_ino)).then_some(mount)
}

fn sealed_copy() -> Result<OwnedFd> {
    copy_to_memory().in_control("executable")
}

fn copy_to_memory() -> Result<OwnedFd> {
    let doing = || "copying this program into a sealed memfd".to_owned();
    let mut from = File::open(OWN).map_err(|cause| {
        let missing = cause.kind() == std::io::ErrorKind::NotFound;
        let error = Error::from(cause).context(OWN).context(doing());
        if missing {
            error.with_kind(invarlock_error::Kind::Unsupported).with_hint(hints::PROC_SELF)
        } else {
            error
        }
    })?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create("invarlock", flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know EXEC and do not need it.
        Err(Errno::INVAL) => rustix::fs::memfd_create("invarlock", flags),
        other => other,
    };
    let mut memory = File::from(memory.or_unsupported(doing, hints::MEMFD)?);
    std::io::copy(&mut from, &mut memory).with_context(doing)?;
    seal::seal(&memory).with_context(doing)?;
    // execve fails while a descriptor is open for writing, so the copy is opened again for reading.
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).with_context(doing)
}
