//! The only `unsafe` code of the program of the tests.
#![allow(unsafe_code, reason = "raw system calls of the test workload")]

/// Ignores SIGTERM.
pub fn ignore_term() {
    // SAFETY: SIG_IGN is a valid action.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}

/// Creates a timer, which takes a pending signal of the user; false if the kernel refuses.
pub fn create_timer() -> bool {
    let mut timer = std::ptr::null_mut();
    // SAFETY: a null event means SIGALRM, and the pointer to the id is valid for the call.
    unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, std::ptr::null_mut(), &raw mut timer) == 0 }
}

/// Takes a read lease on a file; false if the kernel or the filter refuses.
pub fn take_lease(file: &std::fs::File) -> bool {
    use std::os::fd::AsRawFd as _;
    // SAFETY: fcntl(2) with F_SETLEASE takes no pointers.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) == 0 }
}

/// Maps private memory; false if the kernel refuses.
pub fn map_private(length: usize) -> bool {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address that the kernel chooses.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    start != libc::MAP_FAILED
}

/// Makes the kernel allocate this many bytes of page tables: reads a byte of each 2 MiB of a mapping that cannot be written.
pub fn fill_page_tables(bytes: usize) {
    const STEP: usize = 2 << 20;
    let length = bytes / 4096 * STEP;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED, "mapping {length} bytes");
    // SAFETY: the mapping is of this length.
    unsafe { libc::madvise(start, length, libc::MADV_NOHUGEPAGE) };
    for offset in (0..length).step_by(STEP) {
        let byte = start.cast::<u8>().wrapping_add(offset);
        // SAFETY: the offset is inside the mapping, which can be read.
        std::hint::black_box(unsafe { byte.read_volatile() });
    }
}

/// Ends this process with exit code 7 when it gets SIGTERM.
pub fn exit_on_term() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: _exit has no preconditions.
        unsafe { libc::_exit(7) }
    }
    // SAFETY: the handler only calls _exit, which is async-signal-safe.
    unsafe { libc::signal(libc::SIGTERM, end as *const () as libc::sighandler_t) };
}

/// Ignores every signal that can be ignored.
pub fn ignore_all() {
    for signal in 1..=64 {
        // SAFETY: SIG_IGN is a valid action; for SIGKILL, SIGSTOP and libc's own it is refused.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Kills every process that this one may signal, except itself.
pub fn kill_everything() -> i32 {
    // SAFETY: kill(2) takes no pointers.
    match unsafe { libc::kill(-1, libc::SIGKILL) } {
        0 => 0,
        _ => std::io::Error::last_os_error().raw_os_error().unwrap_or(-1),
    }
}

/// Forks without end, in every copy.
pub fn multiply() -> ! {
    loop {
        // SAFETY: this program has one thread, and the copies only do the same.
        unsafe { libc::fork() };
    }
}

/// Forks a child that waits without end.
pub fn fork_a_sleeper() {
    // SAFETY: this program has one thread, and the copy only waits.
    if unsafe { libc::fork() } == 0 {
        loop {
            // SAFETY: pause(2) takes nothing.
            unsafe { libc::pause() };
        }
    }
}

/// Writes a character into the input of a terminal; returns the errno, or 0.
pub fn type_into(fd: i32) -> i32 {
    let character = c"x".as_ptr();
    // SAFETY: TIOCSTI reads one byte.
    match unsafe { libc::ioctl(fd, libc::TIOCSTI, character) } {
        0 => 0,
        _ => std::io::Error::last_os_error().raw_os_error().unwrap_or(-1),
    }
}

/// Gives a terminal another line discipline of the kernel; returns the errno, or 0.
pub fn change_discipline(fd: i32) -> i32 {
    let discipline: libc::c_int = 0;
    // SAFETY: TIOCSETD reads one int.
    match unsafe { libc::ioctl(fd, libc::TIOCSETD, &raw const discipline) } {
        0 => 0,
        _ => std::io::Error::last_os_error().raw_os_error().unwrap_or(-1),
    }
}

/// Stops every process that this one may signal, itself included.
pub fn stop_everything() {
    // SAFETY: kill(2) takes no pointers.
    unsafe { libc::kill(-1, libc::SIGSTOP) };
    // SAFETY: raise(3) takes none either.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Forks a child and a grandchild, each in a session of its own; all three continue.
pub fn become_a_grandchild() {
    for _ in 0..2 {
        // SAFETY: this program has one thread, and the copies go on with what it did.
        match unsafe { libc::fork() } {
            0 => _ = rustix::process::setsid(),
            _ => return,
        }
    }
}

/// Reads unmapped memory.
pub fn fault() {
    let nowhere = std::ptr::without_provenance::<u8>(16);
    // SAFETY: there is none that would matter: the process ends here.
    let _ = unsafe { std::ptr::read_volatile(nowhere) };
}

/// Frees memory twice, which the C library detects.
pub fn free_twice() {
    // SAFETY: any size may be asked for.
    let memory = std::hint::black_box(unsafe { libc::malloc(64) });
    // SAFETY: it was just allocated.
    unsafe { libc::free(memory) };
    // SAFETY: there is none that would matter: the process ends here.
    unsafe { libc::free(std::hint::black_box(memory)) };
}
