//! The single way to add context to an error.

use crate::{Error, Kind, Result};
use std::fmt::Display;

/// Adds context, a hint, a kind or a control to the error of a result.
pub trait Context<T> {
    /// Puts what was being done in front of the message: `reading FILE: No such file or directory`.
    fn context(self, doing: impl Display) -> Result<T>;

    /// As [`Context::context`], computed only for an error.
    fn with_context<D: Display>(self, doing: impl FnOnce() -> D) -> Result<T>;

    /// Adds what the user can do. The first hint stays.
    fn hint(self, hint: impl Into<String>) -> Result<T>;

    /// Sets the kind, where the caller knows better than the source.
    fn kind(self, kind: Kind) -> Result<T>;

    /// Sets [`Kind::Input`] where a path that the user supplied does not exist.
    fn input_if_not_found(self) -> Result<T>;

    /// Sets the control of the boundary that the error concerns.
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

/// Converts errors of other libraries.
pub trait Foreign<T> {
    /// Converts the error to one of `kind`, with the library's error as its source.
    fn err_kind(self, kind: Kind) -> Result<T>;
}

impl<T, E: std::error::Error + Send + Sync + 'static> Foreign<T> for std::result::Result<T, E> {
    fn err_kind(self, kind: Kind) -> Result<T> {
        self.map_err(|error| Error::from_source(kind, error))
    }
}
