//! The one way to say what was being done when something failed.

use crate::{Error, Kind, Result};
use std::fmt::Display;

/// Adds to the error of a result what was being done, or what the user can do.
pub trait Context<T> {
    /// What was being done, in front of the message: `reading FILE: No such file or directory`.
    fn context(self, doing: impl Display) -> Result<T>;

    /// The same, computed only when there is an error.
    fn with_context<D: Display>(self, doing: impl FnOnce() -> D) -> Result<T>;

    /// What the user can do; the first hint stays.
    fn hint(self, hint: impl Into<String>) -> Result<T>;

    /// The kind of the error, where the caller knows better than its source.
    fn kind(self, kind: Kind) -> Result<T>;

    /// [`Kind::Input`] where a path that the user supplied does not exist.
    fn input_if_not_found(self) -> Result<T>;

    /// The control of the boundary that the error concerns.
    fn in_control(self, control: &str) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl Display) -> Result<T> {
        self.map_err(|error| error.into().context(doing))
    }

    fn with_context<D: Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.into().context(doing()))
    }

    fn hint(self, hint: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.into().with_hint(hint))
    }

    fn kind(self, kind: Kind) -> Result<T> {
        self.map_err(|error| error.into().with_kind(kind))
    }

    fn input_if_not_found(self) -> Result<T> {
        self.map_err(|error| error.into().input_if_not_found())
    }

    fn in_control(self, control: &str) -> Result<T> {
        self.map_err(|error| error.into().in_control(control))
    }
}

/// Errors of other libraries become ours.
pub trait Foreign<T> {
    /// An error of `kind` with the library's error as its source.
    fn err_kind(self, kind: Kind) -> Result<T>;
}

impl<T, E: std::error::Error + Send + Sync + 'static> Foreign<T> for std::result::Result<T, E> {
    fn err_kind(self, kind: Kind) -> Result<T> {
        self.map_err(|error| Error::from_source(kind, error))
    }
}
