//! System calls that no crate of ours wraps. All `unsafe` of this room is here.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Which side of a [`clone_process`] this is.
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one: the new one's pid and pidfd.
    Parent(i32, OwnedFd),
}

fn result(value: libc::c_long) -> io::Result<libc::c_long> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Copies this process, into new `namespaces` (`CLONE_NEW…`), and into a cgroup of v2 where one is given. The caller has one thread.
pub(crate) fn clone_process(namespaces: c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: c_int = -1;
    // SAFETY: clone_args is plain data for which zeroes are valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_PIDFD | namespaces) as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    let (pointer, size) = (&raw mut args, size_of::<libc::clone_args>());
    // SAFETY: the arguments live as long as the call; without CLONE_VM and with one thread this is fork(2).
    let pid = match result(unsafe { libc::syscall(libc::SYS_clone3, pointer, size) }) {
        // Filters of other container runtimes hide clone3, since they cannot see its flags.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) && cgroup.is_none() => {
            old_clone(namespaces, &mut pidfd)?
        }
        other => other?,
    };
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: the kernel just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Forked::Parent(pid as i32, pidfd))
}

fn old_clone(namespaces: c_int, pidfd: &mut c_int) -> io::Result<libc::c_long> {
    let flags = libc::c_long::from(libc::CLONE_PIDFD | libc::SIGCHLD | namespaces);
    let (none, pointer) = (0 as libc::c_long, std::ptr::from_mut(pidfd));
    // SAFETY: without a stack, CLONE_VM or a second thread this is fork(2); the pidfd goes where the parent's id would.
    result(unsafe { libc::syscall(libc::SYS_clone, flags, none, pointer, none, none) })
}

/// Ends this process without running anything of the one it was copied from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// `mount_setattr(2)` on a mount given by its handle. It is private from then on: a clone of a mount of the host is of that mount's peer
/// group, through which what is mounted on either would show on both.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    userns: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: if crate::hooks::off("private mounts") { libc::MS_SLAVE } else { libc::MS_PRIVATE },
        userns_fd: userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let (empty, pointer, size) = (c"".as_ptr(), &raw const attr, size_of::<libc::mount_attr>());
    // SAFETY: both pointers are valid for the call.
    result(unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), empty, flags, pointer, size)
    })?;
    Ok(())
}

/// Raises `lo` of this network namespace. Any socket can carry the request, so a Unix one does.
pub(crate) fn raise_loopback() -> io::Result<()> {
    // SAFETY: socket(2) takes no pointers.
    let raw = result(libc::c_long::from(unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
    }))?;
    // SAFETY: the kernel just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(raw as RawFd) };
    // SAFETY: ifreq is plain data for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as c_char;
    request.ifr_name[1] = b'o' as c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the request is valid for the call, and SIOCSIFFLAGS takes an ifreq.
    result(libc::c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    }))?;
    Ok(())
}

/// Another descriptor for what `fd` names, closed by execve. A number that names nothing gives `EBADF`.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_DUPFD_CLOEXEC takes no pointers and leaves `fd` as it is.
    let raw = result(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) }))?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

/// Closes every descriptor from 3 up but those in `keep`.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> =
        keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for kept in keep.into_iter().chain([u32::MAX]) {
        if kept > first {
            let last = if kept == u32::MAX { kept } else { kept - 1 };
            // SAFETY: the callers own every descriptor of their process and use none but the kept ones afterwards.
            result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        }
        first = kept.saturating_add(1);
    }
    Ok(())
}

/// A descriptor that is readable while one of `signals` waits; they are blocked.
pub(crate) fn signalfd(signals: &[c_int]) -> io::Result<OwnedFd> {
    let set = block_signals(signals)?;
    // SAFETY: the set is valid for the call.
    let raw = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    result(libc::c_long::from(raw))?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn block_signals(signals: &[c_int]) -> io::Result<libc::sigset_t> {
    let set = signal_set(signals);
    // SAFETY: the set is valid for the call.
    result(libc::c_long::from(unsafe {
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
    }))?;
    Ok(set)
}

fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: sigset_t is plain data for which zeroes are valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in signals {
        // SAFETY: the set is ours; a wrong number is refused by the call.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

/// One signal back to its default action.
pub(crate) fn default_action(signal: c_int) {
    // SAFETY: SIG_DFL is always a valid action.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// One signal without any effect.
pub(crate) fn ignore(signal: c_int) {
    // SAFETY: SIG_IGN is always a valid action.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Every signal back to its default action and unblocked, as a program expects to be started.
pub(crate) fn reset_signals() {
    // SIGKILL, SIGSTOP and libc's own are refused by the call.
    (1..=64).for_each(default_action);
    let none = signal_set(&[]);
    // SAFETY: the set is valid for the call.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// A reaped child.
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    /// As `wait(2)` encodes it.
    pub(crate) status: c_int,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// Largest resident set.
    pub(crate) peak_kib: u64,
}

/// Reaps one dead child: `Ok(None)` where all are alive, an error (`ECHILD`) where there is none.
pub(crate) fn reap() -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: rusage is plain data for which zeroes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call. __WALL: children made with CLONE_PARENT have no exit signal.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG | libc::__WALL, &raw mut usage) };
    if result(libc::c_long::from(pid))? == 0 {
        return Ok(None);
    }
    let time =
        |t: libc::timeval| Duration::new(t.tv_sec.unsigned_abs(), t.tv_usec.unsigned_abs() as u32 * 1000);
    Ok(Some(Reaped {
        pid,
        status,
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        peak_kib: usage.ru_maxrss.unsigned_abs(),
    }))
}

/// The pid's process gets the signal. Only for our own unreaped children, whose pids cannot be anybody else's.
pub(crate) fn kill_child(pid: i32, signal: c_int) {
    debug_assert!(pid > 1);
    // SAFETY: kill(2) takes no pointers.
    unsafe { libc::kill(pid, signal) };
}

/// Whether signals can be sent to what the pidfd is of: the call is made without one.
pub(crate) fn can_signal(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let (none, info) = (0, std::ptr::null::<libc::siginfo_t>());
    // SAFETY: without a signal nothing is sent, and the call takes no other information.
    result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), none, info, 0) })?;
    Ok(())
}

/// Strings as `execve(2)` takes them.
pub(crate) struct Vector {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Vector {
    /// Fails on a NUL byte inside a string.
    pub(crate) fn new(strings: impl IntoIterator<Item = String>) -> Result<Self, std::ffi::NulError> {
        let strings = strings.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Vector { _strings: strings, pointers })
    }
}

/// Becomes another program; comes back only with the reason why not.
pub(crate) fn execve(program: &CStr, argv: &Vector, env: &Vector) -> io::Error {
    let (argv, env) = (argv.pointers.as_ptr(), env.pointers.as_ptr());
    // SAFETY: all are NUL-terminated and alive.
    unsafe { libc::execve(program.as_ptr(), argv, env) };
    io::Error::last_os_error()
}

/// True where the kernel says that this process runs with more rights than its caller (set-uid, file capabilities).
pub(crate) fn is_secure_execution() -> bool {
    // SAFETY: getauxval takes no pointers.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Flags of open descriptors that the container side relies on: `O_CLOEXEC` of every descriptor from 3 up.
pub(crate) fn cloexec_from_3() -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_int = 4;
    // SAFETY: only a flag of descriptors changes.
    result(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// The opposite, for tests that leave this out; nothing in a release build.
pub(crate) fn keep_open_from_3() -> io::Result<()> {
    #[cfg(debug_assertions)]
    for fd in 3..64 {
        // SAFETY: only a flag of a descriptor changes; what is not open is refused.
        unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    }
    Ok(())
}

/// `unshare(2)`. The caller has one thread.
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: unshare(2) takes no pointers, and one thread shares nothing with another.
    result(libc::c_long::from(unsafe { libc::unshare(flags) })).map(drop)
}

/// Waits for a blocked signal, at most this long.
pub(crate) fn wait_for_signal(signal: c_int, longest: Duration) {
    let set = signal_set(&[signal]);
    let time = libc::timespec {
        tv_sec: longest.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(longest.subsec_nanos() as i32),
    };
    // SAFETY: both are valid for the call; no information is asked for.
    unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time) };
}

/// Whether clone3(2) is there: asked with arguments that it refuses.
pub(crate) fn has_clone3() -> bool {
    // SAFETY: a size of 0 is refused before anything is read.
    let answer =
        result(unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<libc::clone_args>(), 0usize) });
    answer.is_err_and(|e| e.raw_os_error() != Some(libc::ENOSYS))
}

/// Words of memory that copies of this process share with it.
pub(crate) struct SharedWords {
    first: *const AtomicU64,
    count: usize,
}

// SAFETY: the memory is never given back and holds atomics only.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// The words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: `shared_words` mapped that many, zeroed and aligned to a page, for as long as this process lives.
        unsafe { std::slice::from_raw_parts(self.first, self.count) }
    }
}

/// Maps `count` zeroed words.
pub(crate) fn shared_words(count: usize) -> io::Result<SharedWords> {
    let (none, bytes) = (std::ptr::null_mut(), count * size_of::<AtomicU64>());
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at a place of the kernel's choice.
    let memory = unsafe { libc::mmap(none, bytes, access, kind, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(SharedWords { first: memory.cast(), count })
}
