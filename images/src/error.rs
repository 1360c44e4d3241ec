//! What can go wrong here: the variants are the kinds of design §7, each with the whole message.

use std::fmt::Display;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user can fix it.
    #[error("{0}")]
    Input(String),
    /// Bytes are not what they were said to be.
    #[error("{0}")]
    Integrity(String),
    /// It looks like an attack.
    #[error("{0}")]
    Safety(String),
    /// Not built.
    #[error("{0}")]
    Unsupported(String),
    /// The system failed.
    #[error("{0}")]
    System(String),
}

impl Error {
    /// An error of the system while `doing` something.
    pub(crate) fn io(doing: impl Display) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System(format!("{doing}: {source}"))
    }

    /// The same error with what was being done in front.
    pub(crate) fn within(self, doing: impl Display) -> Self {
        let put = |message: String| format!("{doing}: {message}");
        match self {
            Self::Input(message) => Self::Input(put(message)),
            Self::Integrity(message) => Self::Integrity(put(message)),
            Self::Safety(message) => Self::Safety(put(message)),
            Self::Unsupported(message) => Self::Unsupported(put(message)),
            Self::System(message) => Self::System(put(message)),
        }
    }

    /// The same error; one about altered or damaged bytes ends with what helps, unless it says so already.
    pub(crate) fn with_remedy(self, remedy: &str) -> Self {
        match self {
            Self::Integrity(message) if !message.contains("remedy: ") => {
                Self::Integrity(format!("{message}; remedy: {remedy}"))
            }
            other => other,
        }
    }
}

impl From<invarlock_security::Error> for Error {
    fn from(error: invarlock_security::Error) -> Self {
        use invarlock_security::Error as Of;
        match error {
            Of::Input(message) => Self::Input(message),
            Of::Safety(message) => Self::Safety(message),
            Of::Unsupported(message) => Self::Unsupported(message),
            other => Self::System(other.to_string()),
        }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
