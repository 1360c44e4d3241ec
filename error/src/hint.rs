//! Hints that follow from an errno alone.

use std::io::{Error, ErrorKind};

/// The hint for a missing system call. Every system call that this project requires exists since Linux 5.15.
pub const MISSING_CALL: &str = "install Linux 5.15 or newer; in a container, let its filter allow the call \
     (`invarlock doctor` lists what is missing)";

/// Errno values of Linux for which `std::io::ErrorKind` has no separate kind.
const EACCES: i32 = 13;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSYS: i32 = 38;

/// Whether the kernel, or the seccomp filter of a surrounding container, lacks the system call.
pub(crate) fn is_missing_call(error: &Error) -> bool {
    error.raw_os_error() == Some(ENOSYS)
}

pub(crate) fn for_io(error: &Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(ENOSYS) => return Some(MISSING_CALL),
        Some(EMFILE | ENFILE) => return Some("allow more open files (`ulimit -n`)"),
        Some(EACCES) => return Some("check the owner and mode of the path and of the directories above it"),
        _ => {}
    }
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some("free some space on that file system, or use another one")
        }
        ErrorKind::FileTooLarge => Some("allow larger files (`ulimit -f`)"),
        ErrorKind::OutOfMemory => Some("free some memory or allow more of it (`ulimit -v`)"),
        _ => None,
    }
}
