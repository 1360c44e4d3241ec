//! The only `unsafe` of the tests' program.

/// SIGTERM does nothing from here on.
pub fn ignore_term() {
    // SAFETY: SIG_IGN is a valid action.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}

/// No signal that can be ignored does anything from here on.
pub fn ignore_all() {
    for signal in 1..=64 {
        // SAFETY: SIG_IGN is a valid action; for SIGKILL, SIGSTOP and libc's own it is refused.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Kills every process that this one may signal, but itself.
pub fn kill_everything() -> i32 {
    // SAFETY: kill(2) takes no pointers.
    match unsafe { libc::kill(-1, libc::SIGKILL) } {
        0 => 0,
        _ => std::io::Error::last_os_error().raw_os_error().unwrap_or(-1),
    }
}

/// Copies itself as fast as it can, and the copies do, for ever.
pub fn multiply() -> ! {
    loop {
        // SAFETY: this program has one thread, and the copies only do the same.
        unsafe { libc::fork() };
    }
}

/// A copy of this process that does nothing for ever.
pub fn fork_a_sleeper() {
    // SAFETY: this program has one thread, and the copy only waits.
    if unsafe { libc::fork() } == 0 {
        loop {
            // SAFETY: pause(2) takes nothing.
            unsafe { libc::pause() };
        }
    }
}

/// Types a character into the terminal that this descriptor is: 0, or the errno.
pub fn type_into(fd: i32) -> i32 {
    let character = c"x".as_ptr();
    // SAFETY: TIOCSTI reads one byte.
    match unsafe { libc::ioctl(fd, libc::TIOCSTI, character) } {
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

/// Goes on as a child and a grandchild too, each in a session of its own.
pub fn become_a_grandchild() {
    for _ in 0..2 {
        // SAFETY: this program has one thread, and the copies go on with what it did.
        match unsafe { libc::fork() } {
            0 => _ = rustix::process::setsid(),
            _ => return,
        }
    }
}

/// Touches memory that is not there.
pub fn fault() {
    let nowhere = std::ptr::without_provenance::<u8>(16);
    // SAFETY: there is none that would matter: the process ends here.
    let _ = unsafe { std::ptr::read_volatile(nowhere) };
}

/// Gives memory back twice, which the C library notices.
pub fn free_twice() {
    // SAFETY: any size may be asked for.
    let memory = std::hint::black_box(unsafe { libc::malloc(64) });
    // SAFETY: it was just allocated.
    unsafe { libc::free(memory) };
    // SAFETY: there is none that would matter: the process ends here.
    unsafe { libc::free(std::hint::black_box(memory)) };
}
