//! Hints that follow from the number of a failed system call alone.

use std::io::{Error, ErrorKind};

/// The hint for a missing system call. Every call of this project exists since Linux 5.15, or has a fallback.
pub const MISSING_CALL: &str = "install Linux 5.15 or newer; in a container, let its filter allow the call \
     (`invarlock doctor` says what is missing)";

/// Numbers of Linux for which the standard library has no kind of their own.
const EACCES: i32 = 13;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSYS: i32 = 38;

/// Whether the kernel, or a filter of a container around us, lacks the system call.
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
