//! System calls that no dependency wraps. All `unsafe` code of this crate is here.
#![allow(unsafe_code, reason = "raw system calls without a safe wrapper")]

use rustix::mount::OpenTreeFlags;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The result of [`clone_process`].
pub(crate) enum Forked {
    /// In the new process.
    Child,
    /// In the caller: the pid and pidfd of the new process.
    Parent(i32, OwnedFd),
}

fn result(value: libc::c_long) -> io::Result<libc::c_long> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Clones this process into new `namespaces` (`CLONE_NEW…`) and, if one is given, into a cgroup of version 2. The caller must have one
/// thread.
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
    // SAFETY: the kernel just created this descriptor for the caller.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Forked::Parent(pid as i32, pidfd))
}

fn old_clone(namespaces: c_int, pidfd: &mut c_int) -> io::Result<libc::c_long> {
    let flags = libc::c_long::from(libc::CLONE_PIDFD | libc::SIGCHLD | namespaces);
    let (none, pointer) = (0 as libc::c_long, std::ptr::from_mut(pidfd));
    // SAFETY: without a stack, CLONE_VM or a second thread this is fork(2); the pidfd goes where the parent's id would.
    result(unsafe { libc::syscall(libc::SYS_clone, flags, none, pointer, none, none) })
}

/// The size of the stack of a process that shares this one's memory: enough for a few system calls.
const STACK: usize = 64 << 10;

/// Clones this process into new `namespaces`, with the same memory, to run `body` on `stack`. Neither its page
/// tables nor pages that it writes later are copied.
///
/// # Safety
///
/// Until the new process is dead, `stack` and `argument` must live. If this process goes on meanwhile, `body` may only make system calls
/// that change no memory.
unsafe fn clone_with_memory(
    namespaces: c_int,
    stack: &mut [u128],
    body: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
) -> io::Result<libc::pid_t> {
    let top = stack.as_mut_ptr_range().end.cast();
    // SAFETY: the stack is aligned and has room, as the caller promises also for as long as it is used.
    let pid = unsafe { libc::clone(body, top, libc::CLONE_VM | namespaces, argument) };
    result(libc::c_long::from(pid)).map(|_| pid)
}

/// Waits for the end of a process that has no exit signal.
fn wait_for(pid: libc::pid_t) {
    // SAFETY: a null status is allowed.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// A detached clone, with these attributes, of the mount at `path`. A user and a mount namespace are made for it, so the caller needs no
/// privilege. Any thread may call it; it waits until the mount is there.
pub(crate) fn clone_mount_as_user(path: &CStr, attributes: u64) -> io::Result<OwnedFd> {
    struct MountRequest<'a> {
        path: &'a CStr,
        attributes: u64,
        result: io::Result<OwnedFd>,
    }
    extern "C" fn clone_mount(request: *mut c_void) -> c_int {
        // SAFETY: `request` is that of the waiting caller.
        let request = unsafe { &mut *request.cast::<MountRequest<'_>>() };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        let cloned = rustix::mount::open_tree(rustix::fs::CWD, request.path, flags).map_err(io::Error::from);
        request.result = cloned.and_then(|mount| {
            mount_setattr(mount.as_fd(), false, request.attributes, libc::MS_PRIVATE, None)?;
            Ok(mount)
        });
        0
    }
    let mut request = MountRequest { path, attributes, result: Err(io::ErrorKind::Interrupted.into()) };
    // The new process has the descriptors of this one, so the mount need not be sent. It must not run handlers of signals.
    let namespaces = libc::CLONE_VFORK | libc::CLONE_FILES | libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    let mut stack = vec![0; STACK / size_of::<u128>()];
    let blocked = Blocked::all();
    // SAFETY: CLONE_VFORK suspends this thread until the new process is dead, and the other threads know nothing of `request`.
    let pid = unsafe {
        clone_with_memory(namespaces, &mut stack, clone_mount, std::ptr::from_mut(&mut request).cast())
    };
    drop(blocked);
    wait_for(pid?);
    request.result
}

/// Calls `work` with the id of a process in a new user namespace. The process only waits. It ends with the call, or with this process.
pub(crate) fn with_user_namespace<T>(work: impl FnOnce(i32) -> T) -> io::Result<T> {
    extern "C" fn wait(parent: *mut c_void) -> c_int {
        let prepared = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        if prepared.is_err() || now as usize != parent.addr() {
            return 1;
        }
        let none = std::ptr::null::<c_void>();
        loop {
            // SAFETY: without descriptors and time the call only waits. No signal but SIGKILL ends it, so it writes no errno.
            unsafe { libc::syscall(libc::SYS_ppoll, none, 0usize, none, none, 0usize) };
        }
    }
    /// Ends the process when dropped.
    struct Waiting(libc::pid_t);
    impl Drop for Waiting {
        fn drop(&mut self) {
            kill_child(self.0, libc::SIGKILL);
            wait_for(self.0);
        }
    }
    let mut stack = vec![0; STACK / size_of::<u128>()];
    let parent = std::ptr::without_provenance_mut(std::process::id() as usize);
    let blocked = Blocked::all();
    // SAFETY: the process is dead before the stack is gone, and it only waits.
    let pid = unsafe { clone_with_memory(libc::CLONE_NEWUSER, &mut stack, wait, parent) };
    drop(blocked);
    let process = Waiting(pid?);
    Ok(work(process.0))
}

/// Every signal is blocked for this thread while this lives.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn all() -> Self {
        // SAFETY: sigset_t is plain data for which zeroes are valid.
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
        // SAFETY: the set is valid for the call.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: both sets are valid for the call.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
        Blocked(before)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is the one that was valid before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Ends this process without running exit handlers of the process that it was cloned from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// `mount_setattr(2)` on a mount given by its handle.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    propagation: u64,
    userns: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation,
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

/// Enables `lo` in this network namespace. The request works on any socket; a Unix socket needs no network.
pub(crate) fn raise_loopback() -> io::Result<()> {
    // SAFETY: socket(2) takes no pointers.
    let raw = result(libc::c_long::from(unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
    }))?;
    // SAFETY: the kernel just created this descriptor for the caller.
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

/// Duplicates `fd`; the copy is closed at execve. `EBADF` if it is not open.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_DUPFD_CLOEXEC takes no pointers and leaves `fd` as it is.
    let raw = result(libc::c_long::from(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) }))?;
    // SAFETY: the kernel just created this descriptor for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

/// Closes every descriptor from 3 up except those in `keep`.
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

/// Blocks `signals` and returns a descriptor that is readable while one of them is pending.
pub(crate) fn signalfd(signals: &[c_int]) -> io::Result<OwnedFd> {
    let set = block_signals(signals)?;
    // SAFETY: the set is valid for the call.
    let raw = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    result(libc::c_long::from(raw))?;
    // SAFETY: the kernel just created this descriptor for the caller.
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
    // SAFETY: the set is valid for the call.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in signals {
        // SAFETY: the set is valid for the call, which rejects a wrong number.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

/// Restores the default action of a signal.
pub(crate) fn default_action(signal: c_int) {
    // SAFETY: SIG_DFL is always a valid action.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Ignores a signal.
pub(crate) fn ignore(signal: c_int) {
    // SAFETY: SIG_IGN is always a valid action.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Restores the default action of every signal and unblocks all, as a program expects at its start.
pub(crate) fn reset_signals() {
    // The call rejects SIGKILL, SIGSTOP and the signals that libc uses itself.
    (1..=64).for_each(default_action);
    let none = signal_set(&[]);
    // SAFETY: the set is valid for the call.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// A reaped child.
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    /// The status as `wait(2)` encodes it.
    pub(crate) status: c_int,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// Largest resident set.
    pub(crate) peak_kib: u64,
}

/// Reaps one dead child: `Ok(None)` if all are alive, an error (`ECHILD`) if there is no child.
pub(crate) fn reap() -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: rusage is plain data for which zeroes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call. __WALL: children cloned with CLONE_PARENT have no exit signal.
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

/// Sends a signal to a child. Only for unreaped children of this process: their pids cannot have been reused.
pub(crate) fn kill_child(pid: i32, signal: c_int) {
    debug_assert!(pid > 1);
    // SAFETY: kill(2) takes no pointers.
    unsafe { libc::kill(pid, signal) };
}

/// Checks, by sending signal 0, whether signals can be sent through a pidfd.
pub(crate) fn can_signal(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let (none, info) = (0, std::ptr::null::<libc::siginfo_t>());
    // SAFETY: signal 0 is not delivered, and a null info is valid.
    result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), none, info, 0) })?;
    Ok(())
}

/// A null-terminated array of strings for `execve(2)`.
pub(crate) struct Vector {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Vector {
    /// Fails if a string contains a NUL byte.
    pub(crate) fn new(strings: impl IntoIterator<Item = String>) -> Result<Self, std::ffi::NulError> {
        let strings = strings.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Vector { _strings: strings, pointers })
    }
}

/// Executes another program. Returns only on failure.
pub(crate) fn execve(program: &CStr, argv: &Vector, env: &Vector) -> io::Error {
    let (argv, env) = (argv.pointers.as_ptr(), env.pointers.as_ptr());
    // SAFETY: all are NUL-terminated and alive.
    unsafe { libc::execve(program.as_ptr(), argv, env) };
    io::Error::last_os_error()
}

/// Whether this process runs with more rights than its caller (set-uid, file capabilities).
pub(crate) fn is_secure_execution() -> bool {
    // SAFETY: getauxval takes no pointers.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Sets `O_CLOEXEC` on every descriptor from 3 up.
pub(crate) fn cloexec_from_3() -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_int = 4;
    // SAFETY: the call only changes a flag of descriptors.
    result(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// The opposite, for a test that leaves this control out; without fault hooks it does nothing.
pub(crate) fn keep_open_from_3() -> io::Result<()> {
    #[cfg(feature = "fault-injection")]
    for fd in 3..64 {
        // SAFETY: the call only changes a flag of a descriptor and fails on one that is not open.
        unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    }
    Ok(())
}

/// `unshare(2)`. The caller has one thread.
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: unshare(2) takes no pointers, and one thread shares nothing with another.
    result(libc::c_long::from(unsafe { libc::unshare(flags) })).map(drop)
}

/// Waits for a blocked signal, at most `longest`.
pub(crate) fn wait_for_signal(signal: c_int, longest: Duration) {
    let set = signal_set(&[signal]);
    let time = libc::timespec {
        tv_sec: longest.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(longest.subsec_nanos() as i32),
    };
    // SAFETY: both are valid for the call; a null info is allowed.
    unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time) };
}

/// Whether clone3(2) is available, checked with arguments that it rejects.
pub(crate) fn has_clone3() -> bool {
    // SAFETY: the kernel rejects a size of 0 before it reads the arguments.
    let answer =
        result(unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<libc::clone_args>(), 0usize) });
    answer.is_err_and(|e| e.raw_os_error() != Some(libc::ENOSYS))
}

/// Words of memory that this process shares with its clones.
pub(crate) struct SharedWords {
    first: *const AtomicU64,
    count: usize,
}

// SAFETY: the memory is never unmapped and holds only atomics.
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
    // SAFETY: a new mapping at an address that the kernel chooses.
    let memory = unsafe { libc::mmap(none, bytes, access, kind, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(SharedWords { first: memory.cast(), count })
}
