//! What a failed system call means where the same number has more than one cause.

use invarlock_error::{Error, Kind, Result};

/// Resource shortages, which are never a missing feature.
const SHORTAGES: [i32; 4] = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE];

/// Errors of system calls that create processes, namespaces and mounts.
pub(crate) trait SystemCall<T> {
    /// [`Kind::Unsupported`] with what an administrator can do, unless a resource is exhausted.
    fn or_unsupported(self, doing: impl FnOnce() -> String, hint: &str) -> Result<T>;
    /// [`Kind::System`]; `EAGAIN` gets the hint to allow more processes.
    fn or_no_process(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> SystemCall<T> for std::result::Result<T, E> {
    fn or_unsupported(self, doing: impl FnOnce() -> String, hint: &str) -> Result<T> {
        self.map_err(|cause| {
            let error = more_processes(cause.into()).context(doing());
            match error.errno() {
                Some(errno) if SHORTAGES.contains(&errno) => error,
                _ => error.without_hint().with_kind(Kind::Unsupported).with_hint(hint),
            }
        })
    }

    fn or_no_process(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| more_processes(cause.into()).context(doing()))
    }
}

fn more_processes(error: Error) -> Error {
    match error.errno() {
        Some(libc::EAGAIN) => {
            error.with_hint("allow more processes (`ulimit -u`, or `pids.max` of the caller's cgroup)")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn creating(errno: i32) -> Error {
        Err::<(), _>(rustix::io::Errno::from_raw_os_error(errno))
            .or_unsupported(|| "creating".into(), "ask the administrator")
            .expect_err("a failure")
    }

    #[test]
    fn shortage_is_not_a_missing_feature() {
        for (errno, hint) in
            [(libc::EAGAIN, "ulimit -u"), (libc::ENOMEM, "ulimit -v"), (libc::EMFILE, "ulimit -n")]
        {
            let error = creating(errno);
            assert_eq!(error.kind(), Kind::System);
            assert!(error.hint().is_some_and(|text| text.contains(hint)), "{error:?}");
        }
    }

    #[test]
    fn missing_feature_has_the_hint_of_the_caller() {
        for errno in [libc::EPERM, libc::ENOSYS, libc::EACCES] {
            let error = creating(errno);
            assert_eq!(error.kind(), Kind::Unsupported);
            assert_eq!(error.hint(), Some("ask the administrator"));
        }
    }
}
