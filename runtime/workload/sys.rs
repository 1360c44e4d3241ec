//! The only `unsafe` of the tests' program.

/// SIGTERM does nothing from here on.
pub fn ignore_term() {
    // SAFETY: SIG_IGN is a valid action.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
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
