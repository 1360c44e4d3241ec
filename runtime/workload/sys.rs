//! The only `unsafe` of the tests' program.

/// SIGTERM does nothing from here on.
pub fn ignore_term() {
    // SAFETY: SIG_IGN is a valid action.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}
