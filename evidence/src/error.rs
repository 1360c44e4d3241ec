//! The one error type of this crate.

use crate::events::ErrorKind;

/// Why something could not be read, compared or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The user can mend the input.
    #[error("{0}")]
    Input(String),
    /// Bytes are not what they were said to be, or contradict each other.
    #[error("{0}")]
    Integrity(String),
    /// Looks like an attack.
    #[error("{0}")]
    Safety(String),
    /// This version does not do that.
    #[error("{0}")]
    Unsupported(String),
    /// The machine failed.
    #[error("{0}")]
    System(String),
}

impl Error {
    /// The kind, from which the caller derives its exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Input(_) => ErrorKind::Input,
            Error::Integrity(_) => ErrorKind::Integrity,
            Error::Safety(_) => ErrorKind::Safety,
            Error::Unsupported(_) => ErrorKind::Unsupported,
            Error::System(_) => ErrorKind::System,
        }
    }
}
