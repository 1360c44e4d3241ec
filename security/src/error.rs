//! What can go wrong here: the variants are the kinds of design §7, each with the whole message.

use std::path::Path;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user named what is not there.
    #[error("{0}")]
    Input(String),
    /// Somebody else could have written what stands there.
    #[error("{0}")]
    Safety(String),
    /// This machine cannot.
    #[error("{0}")]
    Unsupported(String),
    /// The system failed.
    #[error("{0}")]
    System(String),
}

impl Error {
    pub(crate) fn io(doing: &str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        let source = source.into();
        let message = format!("{doing} {}: {source}", path.display());
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::Input(message),
            _ => Self::System(message),
        }
    }
}

impl From<invarlock_seccomp::Error> for Error {
    fn from(error: invarlock_seccomp::Error) -> Self {
        let message = format!("row \"system calls\": denying this process the network: {error}");
        match error {
            invarlock_seccomp::Error::Unsupported(_) => Self::Unsupported(message),
            _ => Self::System(message),
        }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
