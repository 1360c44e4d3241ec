//! Failures of a measurement and what the caller learns of them.

use invarlock_evidence::events::ErrorKind;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a measurement failed: the kind says whose fault it is, the text what was wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user can mend the checkpoint, the dataset or the job.
    #[error("{0}")]
    Input(String),
    /// Bytes are not what they were said to be.
    #[error("{0}")]
    Integrity(String),
    /// A well-formed input asks for something that this evaluator does not do.
    #[error("{0}")]
    Unsupported(String),
    /// The machine failed, or this program did.
    #[error("{0}")]
    System(String),
}

impl Error {
    /// The kind, as events carry it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Input(_) => ErrorKind::Input,
            Self::Integrity(_) => ErrorKind::Integrity,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::System(_) => ErrorKind::System,
        }
    }

    /// Exit code of the program: 2 when the user can mend the input, else 3.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) => 2,
            Self::Integrity(_) | Self::Unsupported(_) | Self::System(_) => 3,
        }
    }
}

/// `return Err(Error::Kind(format!(...)))`
macro_rules! fail {
    ($kind:ident, $($text:tt)*) => {
        return Err($crate::error::Error::$kind(format!($($text)*)))
    };
}
pub(crate) use fail;
