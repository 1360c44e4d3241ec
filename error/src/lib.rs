//! The one error type of the workspace.
//!
//! An [`Error`] has a [`Kind`], from which the exit code follows; a message (what was being done, to what, why it failed); a hint
//! (what the user can do), printed on a line of its own; and its source, so that decisions are made on types and never on the text
//! of a message. [`Context`] is the single way to add what was being done.
//!
//! This crate knows no other crate of the workspace and trusts nothing: a message may contain untrusted text, and the code that prints it
//! escapes it.
//!
//! ```
//! use invarlock_error::{Context as _, Kind, Result};
//!
//! fn size(path: &str) -> Result<u64> {
//!     Ok(std::fs::metadata(path).with_context(|| format!("reading {path}"))?.len())
//! }
//! let error = size("/no/such/file").unwrap_err();
//! assert_eq!(error.kind(), Kind::System);
//! assert_eq!(error.to_string(), "reading /no/such/file: No such file or directory (os error 2)");
//! assert_eq!(error.io_kind(), Some(std::io::ErrorKind::NotFound));
//! ```

#![forbid(unsafe_code)]

mod context;
mod hint;
mod kind;

pub use context::{Context, Foreign};
pub use hint::MISSING_CALL;
pub use kind::Kind;

use serde::{Deserialize, Serialize};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// A result of any crate of the workspace.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure: kind, message, hint and source. Serialized without its source, when it crosses a process boundary.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Error {
    kind: Kind,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    control: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rare: Option<Box<Rare>>,
    #[serde(skip)]
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What few errors have. Errors are returned often, so they stay small.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rare {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program_errno: Option<i32>,
}

impl Error {
    /// An error of `kind`. The message says what was being done, to what, and why it failed.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, control: None, rare: None, source: None }
    }

    /// An error of `kind` with `source` as its cause and as its message.
    pub fn from_source(kind: Kind, source: impl StdError + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..Self::new(kind, String::new()) }.with_message_of_source()
    }

    fn with_message_of_source(mut self) -> Self {
        if let Some(source) = &self.source {
            self.message = source.to_string();
        }
        self
    }

    /// The user can fix it: a wrong argument, file or setting.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// Bytes, or the kernel's view of a container, differ from what was declared.
    pub fn integrity(message: impl Into<String>) -> Self {
        Self::new(Kind::Integrity, message)
    }

    /// A possible attack.
    pub fn safety(message: impl Into<String>) -> Self {
        Self::new(Kind::Safety, message)
    }

    /// This machine or this version does not support it.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// The machine failed, or a limit ended the run.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(Kind::System, message)
    }

    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What was being done, to what, and why it failed; the causes are included.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The control of the boundary that could not be enforced or observed.
    pub fn control(&self) -> Option<&str> {
        self.control.as_deref()
    }

    /// The same error with another kind.
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The same error; of kind [`Kind::Input`] where it comes from a path that does not exist. For paths that the user supplied.
    pub fn input_if_not_found(self) -> Self {
        match self.io_kind() {
            Some(std::io::ErrorKind::NotFound) => self.with_kind(Kind::Input),
            _ => self,
        }
    }

    /// The same error with what the user can do. The first hint stays: the code closest to the failure knows best.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into().into_boxed_str());
        self
    }

    /// The same error without its hint, where the caller knows a better one than the number of the failed call gives.
    pub fn without_hint(mut self) -> Self {
        self.hint = None;
        self
    }

    /// The same error; one of `kind` with what the user can do.
    pub fn with_hint_if(self, kind: Kind, hint: impl Into<String>) -> Self {
        if self.kind == kind { self.with_hint(hint) } else { self }
    }

    /// The same error with what was being done in front of its message.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The same error with a further fact behind its message, such as where a log is.
    pub fn with_note(mut self, note: impl fmt::Display) -> Self {
        self.message = format!("{}; {note}", self.message);
        self
    }

    /// A further fact that is not the cause, printed on a line of its own.
    pub fn note(&self) -> Option<&str> {
        self.rare.as_ref()?.note.as_deref()
    }

    /// The same error with a further fact that is not the cause.
    pub fn with_separate_note(mut self, note: impl Into<String>) -> Self {
        self.rare.get_or_insert_default().note = Some(note.into().into_boxed_str());
        self
    }

    /// The same error with the control of the boundary that it concerns. The first control stays.
    pub fn in_control(mut self, control: &str) -> Self {
        self.control.get_or_insert_with(|| control.into());
        self
    }

    /// The same error with `source` as its cause; the message stays.
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The same error; the program of a run could not be started for this reason. Unlike a source, it crosses process boundaries.
    pub fn with_program_errno(mut self, errno: i32) -> Self {
        self.rare.get_or_insert_default().program_errno = Some(errno);
        self
    }

    /// The `errno` with which starting the program of a run failed.
    pub fn program_errno(&self) -> Option<i32> {
        self.rare.as_ref()?.program_errno
    }

    /// The first cause of type `T`, for decisions.
    pub fn find<T: StdError + 'static>(&self) -> Option<&T> {
        let mut next: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(cause) = next {
            if let Some(found) = cause.downcast_ref() {
                return Some(found);
            }
            // An `io::Error` with a custom payload skips the payload in its own `source`.
            if let Some(payload) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
                && let Some(found) = payload.downcast_ref()
            {
                return Some(found);
            }
            next = cause.source();
        }
        None
    }

    /// The kind of the input/output error that caused this one.
    pub fn io_kind(&self) -> Option<std::io::ErrorKind> {
        self.find::<std::io::Error>().map(std::io::Error::kind)
    }

    /// The `errno` that caused this error.
    pub fn errno(&self) -> Option<i32> {
        self.find::<std::io::Error>().and_then(std::io::Error::raw_os_error)
    }
}

impl PartialEq for Error {
    /// Equal in everything a user sees; sources are not compared.
    fn eq(&self, other: &Self) -> bool {
        let seen = |error: &Self| {
            (error.kind, error.message.clone(), error.hint.clone(), error.control.clone(), error.rare.clone())
        };
        seen(self) == seen(other)
    }
}

impl fmt::Display for Error {
    /// The message without the hint; the control of the boundary that failed is named in front.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(control) = &self.control {
            write!(f, "control \"{control}\": ")?;
        }
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<std::io::Error> for Error {
    /// A [`Kind::System`] error, or [`Kind::Unsupported`] for a missing system call, with the hint that its number alone gives.
    fn from(source: std::io::Error) -> Self {
        let kind = if hint::is_missing_call(&source) { Kind::Unsupported } else { Kind::System };
        let hint = hint::for_io(&source);
        let error = Self::from_source(kind, source);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

#[cfg(feature = "rustix")]
impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}

/// Returns an error: `bail!(Input, "reading {path}: …")`.
#[macro_export]
macro_rules! bail {
    ($kind:ident, $($text:tt)*) => {
        return ::std::result::Result::Err($crate::Error::new($crate::Kind::$kind, ::std::format!($($text)*)))
    };
}

#[cfg(test)]
mod tests;
