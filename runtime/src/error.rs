//! Errors of this crate: five kinds, each with a message that says what was being done, to what, why it failed, what to do.

use serde::{Deserialize, Serialize};

/// Whose matter a failure is, with the whole message. It crosses process boundaries unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "kind", content = "message", rename_all = "snake_case")]
pub enum Error {
    /// The user can fix it.
    #[error("{0}")]
    Input(String),
    /// Bytes, or the kernel's view of the container, are not what they were said to be.
    #[error("{0}")]
    Integrity(String),
    /// It looks like an attack.
    #[error("{0}")]
    Safety(String),
    /// This machine cannot give a row of the boundary.
    #[error("{0}")]
    Unsupported(String),
    /// The machine failed.
    #[error("{0}")]
    System(String),
}

/// Result of a step of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The same error, with what was being done before it.
    pub(crate) fn while_(self, doing: &str) -> Self {
        let say = |message| format!("{doing}: {message}");
        match self {
            Error::Input(m) => Error::Input(say(m)),
            Error::Integrity(m) => Error::Integrity(say(m)),
            Error::Safety(m) => Error::Safety(say(m)),
            Error::Unsupported(m) => Error::Unsupported(say(m)),
            Error::System(m) => Error::System(say(m)),
        }
    }
}

/// Says which row of the boundary this machine cannot give, where the error does not say it yet.
pub(crate) trait InRow {
    /// The same with the row.
    fn in_row(self, row: &str) -> Self;
}

impl InRow for Error {
    fn in_row(self, row: &str) -> Self {
        match self {
            Error::Unsupported(m) if !m.contains("row \"") => {
                Error::Unsupported(format!("row \"{row}\": {m}"))
            }
            other => other,
        }
    }
}

impl<T> InRow for Result<T> {
    fn in_row(self, row: &str) -> Self {
        self.map_err(|e| e.in_row(row))
    }
}

/// Gives a failed system call its sentence.
pub(crate) trait Doing<T> {
    /// A `System` error that says what was being done.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
    /// An `Unsupported` error that says what was being done and what an administrator can do; a `System` error where there is only
    /// too little of something.
    fn or_unsupported(self, what: impl FnOnce() -> String, remedy: &str) -> Result<T>;
    /// A `System` error of a process that could not be made.
    fn or_no_process(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display + 'static> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| failed(what(), &cause))
    }

    fn or_unsupported(self, what: impl FnOnce() -> String, remedy: &str) -> Result<T> {
        self.map_err(|cause| match errno(&cause) {
            Some(libc::EAGAIN) => no_process(&what(), &cause),
            Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => failed(what(), &cause),
            _ => Error::Unsupported(format!("{}: {cause}; {remedy}", what())),
        })
    }

    fn or_no_process(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| match errno(&cause) {
            Some(libc::EAGAIN) => no_process(&what(), &cause),
            _ => failed(what(), &cause),
        })
    }
}

fn no_process(what: &str, cause: &dyn std::fmt::Display) -> Error {
    Error::System(format!(
        "{what}: {cause}; allow more processes (`ulimit -u`, or `pids.max` of the caller's cgroup)"
    ))
}

/// What to do where a call is missing. Every call of this crate is there since Linux 5.15, or there is another way without it.
pub(crate) const NO_CALL: &str = "install Linux 5.15 or newer; in a container, let its filter allow the call \
     (`invarlock doctor` says what is missing)";

fn errno(cause: &dyn std::any::Any) -> Option<i32> {
    match cause.downcast_ref::<std::io::Error>() {
        Some(error) => error.raw_os_error(),
        None => cause.downcast_ref::<rustix::io::Errno>().map(|errno| errno.raw_os_error()),
    }
}

/// The failure of a system call with the remedy that its number alone tells. A call that is missing is the machine's matter.
fn failed<E: std::fmt::Display + 'static>(what: String, cause: &E) -> Error {
    let remedy = match errno(cause) {
        Some(libc::ENOSYS) => return Error::Unsupported(format!("{what}: {cause}; {NO_CALL}")),
        Some(libc::ENOSPC | libc::EDQUOT) => "; free some space on that file system",
        Some(libc::EFBIG) => "; allow larger files (`ulimit -f`)",
        Some(libc::EMFILE | libc::ENFILE) => "; allow more open files (`ulimit -n`)",
        Some(libc::ENOMEM) => "; free some memory or allow more of it (`ulimit -v`)",
        _ => "",
    };
    Error::System(format!("{what}: {cause}{remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(errno: i32) -> (Error, Error) {
        let doing = || "opening a door".to_owned();
        let std = Err::<(), _>(std::io::Error::from_raw_os_error(errno)).doing(doing);
        let rustix = Err::<(), _>(rustix::io::Errno::from_raw_os_error(errno)).doing(doing);
        (std.expect_err("a failure"), rustix.expect_err("a failure"))
    }

    #[test]
    fn a_missing_call_is_unsupported_and_has_a_remedy() {
        let (std, rustix) = of(libc::ENOSYS);
        assert_eq!(std, rustix);
        assert!(
            matches!(&std, Error::Unsupported(m) if m.starts_with("opening a door: ") && m.ends_with(NO_CALL))
        );
    }

    #[test]
    fn what_is_full_is_said_with_its_remedy() {
        let (std, _) = of(libc::ENOSPC);
        assert!(
            matches!(&std, Error::System(m) if m.ends_with("free some space on that file system")),
            "{std}"
        );
        let (std, _) = of(libc::EACCES);
        assert!(matches!(&std, Error::System(m) if m.ends_with("(os error 13)")), "{std}");
    }

    #[test]
    fn too_little_of_something_is_not_a_missing_feature() {
        let making = |errno| {
            Err::<(), _>(rustix::io::Errno::from_raw_os_error(errno))
                .or_unsupported(|| "making".into(), "ask for it")
        };
        for (errno, remedy) in
            [(libc::EAGAIN, "ulimit -u"), (libc::ENOMEM, "ulimit -v"), (libc::EMFILE, "ulimit -n")]
        {
            let error = making(errno).expect_err("a failure");
            assert!(matches!(&error, Error::System(m) if m.contains(remedy)), "{error}");
        }
        let error = making(libc::EPERM).expect_err("a failure");
        assert!(matches!(&error, Error::Unsupported(m) if m.ends_with("ask for it")), "{error}");
    }

    #[test]
    fn a_row_is_named_once() {
        let (error, _) = of(libc::ENOSYS);
        let named = error.in_row("door");
        assert!(named.to_string().starts_with("row \"door\": opening a door"));
        assert_eq!(named.clone().in_row("house"), named);
        let (other, _) = of(libc::EACCES);
        assert_eq!(other.clone().in_row("door"), other);
    }
}
