//! What can go wrong here: the variants are the kinds of design §7, each with the whole message.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A profile that the user can mend.
    #[error("{0}")]
    Input(String),
    /// A compiled program whose bytes are not what they were said to be.
    #[error("{0}")]
    Integrity(String),
    /// This machine cannot.
    #[error("{0}")]
    Unsupported(String),
    /// The kernel refused.
    #[error("{0}")]
    System(String),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
