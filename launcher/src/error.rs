//! Errors of the launcher and the one place where an error becomes an exit code (design section 7).

use crate::args::{Cli, Report};
use invarlock_evidence::events::ErrorKind;
use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

/// Whose matter a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user can mend it: wrong argument, file or setting.
    Input,
    /// Bytes are not what they were said to be.
    Integrity,
    /// Looks like an attack.
    Safety,
    /// This machine or this version cannot do it.
    Unsupported,
    /// The machine failed, or a limit ended the run.
    System,
    /// A signal asked us to stop.
    Interrupted(i32),
}

impl Kind {
    /// Name in `error.kind` of the JSON output.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Input => "input",
            Kind::Integrity => "integrity",
            Kind::Safety => "safety_violation",
            Kind::Unsupported => "unsupported",
            Kind::System => "system",
            Kind::Interrupted(_) => "interrupted",
        }
    }

    /// Exit code of a command that failed with this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Input => 2,
            Kind::Integrity | Kind::Safety | Kind::Unsupported | Kind::System => 3,
            Kind::Interrupted(signal) => 128 + u8::try_from(signal).unwrap_or(1),
        }
    }
}

/// A failure: its kind and a message that says what was being done, to what, why it failed and what to do.
#[derive(Debug)]
pub struct Error {
    /// Whose matter it is.
    pub kind: Kind,
    /// The whole message.
    pub message: String,
    /// Exit code where this failure has its own.
    pub exit_code: Option<u8>,
}

/// Result of a launcher step.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), exit_code: None }
    }

    /// The user can mend it.
    pub fn input(message: impl Into<String>) -> Self {
        Error::new(Kind::Input, message)
    }

    /// A failed call to the system: `doing` says what to what.
    pub fn io(doing: impl fmt::Display, source: &std::io::Error) -> Self {
        let remedy = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "; free some space or choose another directory"
            }
            std::io::ErrorKind::PermissionDenied => {
                "; check the owner and mode of the path and of the directories above it"
            }
            std::io::ErrorKind::FileTooLarge => "; allow larger files (`ulimit -f`)",
            _ if source.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
                "; allow more open files (`ulimit -n`)"
            }
            _ => "",
        };
        Error::new(Kind::System, format!("{doing}: {source}{remedy}"))
    }

    /// The same error with another exit code.
    pub fn with_exit_code(mut self, code: u8) -> Self {
        self.exit_code = Some(code);
        self
    }
}

impl From<ErrorKind> for Kind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Input => Kind::Input,
            ErrorKind::Integrity => Kind::Integrity,
            ErrorKind::Safety => Kind::Safety,
            ErrorKind::Unsupported => Kind::Unsupported,
            ErrorKind::System => Kind::System,
        }
    }
}

/// Converts a room's error, whose variants are the kinds, into ours.
macro_rules! from_room {
    ($($room:ident: $($kind:ident)+;)+) => {$(
        impl From<$room::Error> for Error {
            fn from(error: $room::Error) -> Self {
                let message = error.to_string();
                #[allow(unreachable_patterns, reason = "some rooms have every kind, others have some")]
                let kind = match error {
                    $($room::Error::$kind(..) => Kind::$kind,)+
                    _ => Kind::System,
                };
                Error::new(kind, message)
            }
        }
    )+};
}

from_room! {
    invarlock_evidence: Input Integrity Safety Unsupported;
    invarlock_images: Input Integrity Safety Unsupported;
    invarlock_runtime: Input Integrity Safety Unsupported;
    invarlock_security: Input Safety Unsupported;
    invarlock_seccomp: Input Integrity Unsupported;
}

/// Exit code of our own failures where the workload's code is the command's.
pub const OURS: u8 = 125;

/// Prints the error, as the command reports, and gives the exit code.
pub fn report(error: &Error, cli: &Cli) -> ExitCode {
    let code = error.exit_code.unwrap_or_else(|| match error.kind {
        Kind::Interrupted(_) => error.kind.exit_code(),
        _ if cli.passes_codes_on() => OURS,
        kind => kind.exit_code(),
    });
    let json = || {
        let value = serde_json::json!({
            "ok": false,
            "error": {"kind": error.kind.name(), "message": error.message},
            "resolution": {"exit_code": code},
        });
        crate::ui::ascii(&value.to_string())
    };
    let written = match cli.report() {
        Report::JsonToOutput => writeln!(std::io::stdout(), "{}", json()),
        Report::JsonToError => writeln!(std::io::stderr(), "{}", json()),
        Report::Text => {
            let label = console::style("error").red().bold().for_stderr();
            let (kind, message) = (error.kind.name(), crate::ui::printable(&error.message));
            writeln!(std::io::stderr(), "{label}[{kind}]: {message}")
        }
    };
    // Nobody left to tell when the terminal is gone.
    drop(written);
    ExitCode::from(code)
}
