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

/// Gives a failed system call its sentence.
pub(crate) trait Doing<T> {
    /// A `System` error that says what was being done.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
    /// An `Unsupported` error that says what was being done and what an administrator can do.
    fn or_unsupported(self, what: impl FnOnce() -> String, remedy: &str) -> Result<T>;
}

impl<T, E: std::fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::System(format!("{}: {cause}", what())))
    }

    fn or_unsupported(self, what: impl FnOnce() -> String, remedy: &str) -> Result<T> {
        self.map_err(|cause| Error::Unsupported(format!("{}: {cause}; {remedy}", what())))
    }
}
