//! The roles of this executable. Launcher and supervisor are the same file, started with another `argv[0]`.

use crate::{core_dumps, executable, hooks, process, supervisor, sys};
use invarlock_error::Result;

/// The first line of `main` of every program that calls [`crate::run()`]. In a supervisor it never
/// returns.
pub fn run_if_child() {
    core_dumps::prevent_own();
    match std::env::args_os().next() {
        Some(name) if name == executable::SUPERVISOR => supervisor::main(),
        _ => hooks::start(),
    }
}

/// The second line of such a `main`. It fails in a program that was started with more rights than its caller has, keeps the caller's open
/// descriptors from every process that this one starts, and turns the signal for a too large file into an error.
pub fn guard() -> Result<()> {
    executable::reject_elevated()?;
    sys::ignore(libc::SIGXFSZ);
    process::close_descriptors_on_exec()
}
