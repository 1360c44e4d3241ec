//! The same executable plays several parts. This module tells which, and starts the supervisor from bytes that nothing can change.
//!
//! `/proc/<pid>/exe` of a process in a container leads back to the file it was started from (CVE-2019-5736). So the
//! supervisor, whose copy is builder and init, is never started from that file itself: root starts it through a read-only mount of its
//! own, anybody else from a sealed memory file. Besides, init cannot be inspected from inside at all (it is not dumpable).

use crate::failure::SystemCall as _;
use crate::{seal, sys};
use invarlock_error::{Context as _, Error, Result};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// `argv[0]` of the supervisor.
const SUPERVISOR: &str = "invarlock-supervisor";

/// The first line of `main` of every program that calls [`crate::run()`]: where this process is a supervisor, it
/// never returns.
pub fn run_if_child() {
    match std::env::args_os().next() {
        Some(name) if name == SUPERVISOR => crate::supervisor::main(),
        _ => crate::hooks::start(),
    }
}

/// Where it is a sealed copy: made once a process, and kept alive by the descriptor.
static SEALED: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// The second line of such a `main`: refuses to go on in a program that was started with more rights than its caller's, and keeps
/// descriptors that its caller left open from every process it will start. A file that may not be that large is an error, and not the
/// end by a signal.
pub fn guard() -> Result<()> {
    refuse_elevated()?;
    sys::ignore(libc::SIGXFSZ);
    keep_descriptors()
}

/// Whatever is open from 3 up ends with this process's program.
pub(crate) fn keep_descriptors() -> Result<()> {
    sys::cloexec_from_3().or_unsupported(
        || "row \"descriptors\": keeping open descriptors to this process".into(),
        invarlock_error::MISSING_CALL,
    )
}

fn refuse_elevated() -> Result<()> {
    match sys::is_secure_execution() {
        true => Err(Error::safety(
            "this program is set-uid or has file capabilities: it must not have; remove them",
        )),
        false => Ok(()),
    }
}

/// Starts a supervisor; its end of the socket is its standard input. Gives the mount it was started through, where there is one: nobody
/// needs it any more.
pub(crate) fn spawn(socket: UnixStream) -> Result<(Child, Option<OwnedFd>)> {
    refuse_elevated()?;
    if let Some(mount) = own_mount() {
        return Ok((start(&mount, socket)?, Some(mount)));
    }
    let mut sealed = SEALED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let copy = match sealed.take() {
        Some(fd) => sealed.insert(fd),
        None => sealed.insert(sealed_copy()?),
    };
    Ok((start(copy, socket)?, None))
}

fn start(executable: &OwnedFd, socket: UnixStream) -> Result<Child> {
    let path = format!("/proc/self/fd/{}", executable.as_raw_fd());
    let mut command = Command::new(path);
    if !crate::hooks::off("environment") {
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

pub(crate) fn protected_executable() -> Result<OwnedFd> {
    own_mount().map_or_else(sealed_copy, Ok)
}

/// Root's: see [`read_only_mount`].
fn own_mount() -> Option<OwnedFd> {
    rustix::process::geteuid().is_root().then(read_only_mount).flatten()
}

/// The executable through a mount of its own that is read-only for good: nothing in a container can change a mount it does not have.
fn read_only_mount() -> Option<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = rustix::mount::open_tree(CWD, "/proc/self/exe", flags).ok()?;
    use std::os::fd::AsFd as _;
    sys::mount_setattr(mount.as_fd(), false, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID, None).ok()?;
    Some(mount)
}

/// What an administrator can do where there is no sealed executable.
pub(crate) const NO_MEMFD: &str =
    "set vm.memfd_noexec to 0 or 1; in a container, let its filter allow memfd_create";
const NO_PROC: &str = "mount /proc: `mount -t proc proc /proc`";

fn sealed_copy() -> Result<OwnedFd> {
    let fail = || "row \"executable\": copying this program into sealed memory".to_owned();
    let mut from = File::open("/proc/self/exe").map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => {
            Error::unsupported(format!("{}: /proc/self/exe: {cause}; {NO_PROC}", fail()))
        }
        _ => Error::system(format!("{}: /proc/self/exe: {cause}", fail())),
    })?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create("invarlock", flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know EXEC and need none.
        Err(Errno::INVAL) => rustix::fs::memfd_create("invarlock", flags),
        other => other,
    };
    let memory = memory.or_unsupported(fail, NO_MEMFD)?;
    let mut memory = File::from(memory);
    std::io::copy(&mut from, &mut memory).with_context(fail)?;
    seal::seal(&memory).with_context(fail)?;
    // Executing needs that nobody can write, so a descriptor that only reads.
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).with_context(fail)
}

/// The supervisor's first act: what a caller left open or ignored must not reach a run. A SIGCHLD that is ignored would have the kernel
/// reap the run's processes by itself, and nobody would hear of their end.
pub(crate) fn shed() -> Result<()> {
    sys::close_all_but(&[]).context("closing what a caller left open")?;
    sys::default_action(libc::SIGCHLD);
    Ok(())
}

/// The supervisor's end of the launcher's socket, taken from standard input, which becomes `/dev/null`.
pub(crate) fn launcher_socket() -> Result<UnixStream> {
    let fail = || "taking over the launcher's socket".to_owned();
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).with_context(fail)?;
    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).with_context(fail)?;
    rustix::stdio::dup2_stdin(&null).with_context(fail)?;
    Ok(UnixStream::from(socket))
}
