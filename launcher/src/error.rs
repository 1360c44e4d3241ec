//! How the command line reports an error, and with which exit code.

use crate::output::Resolution;
use crate::ui;
use serde::Serialize;
use std::io::Write as _;

pub use invarlock_error::{Context, Error, Kind, Result};

/// The output file of a verb exists and `--force` was not passed. The Python package exits with 1 in this case.
#[derive(Debug, thiserror::Error)]
#[error("the file exists")]
pub struct OutputExists;

/// The program of an image, which was run for this command, failed with this exit code. The command has the same one.
#[derive(Debug, thiserror::Error)]
#[error("it ended with exit code {0}")]
pub struct ProgramFailed(pub u8);

/// Exit code of a failure of `invarlock` itself, for verbs that exit with the workload's code.
pub const OWN_FAILURE: u8 = 125;

/// Where and in which form a failure is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Human-readable text on standard error.
    #[default]
    Text,
    /// JSON on standard output.
    Json,
    /// JSON on standard error, because standard output belongs to the workload.
    JsonOnStderr,
}

/// The exit codes of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExitCodes {
    /// They follow from the kind of the failure.
    #[default]
    OfKind,
    /// [`OWN_FAILURE`], because the other codes are the workload's.
    OwnFailure,
}

impl ExitCodes {
    /// The exit code of a failure.
    pub fn of(self, error: &Error) -> u8 {
        match (error.kind(), self) {
            (kind @ Kind::Interrupted(_), _) => kind.exit_code(),
            (_, Self::OwnFailure) => OWN_FAILURE,
            (_, Self::OfKind) if error.find::<OutputExists>().is_some() => 1,
            (kind, Self::OfKind) => {
                error.find::<ProgramFailed>().map_or_else(|| kind.exit_code(), |ProgramFailed(code)| *code)
            }
        }
    }
}

/// Prints the error and returns the exit code.
pub fn report(error: &Error, format: Format, codes: ExitCodes) -> u8 {
    let code = codes.of(error);
    let written = match format {
        Format::Json => writeln!(std::io::stdout(), "{}", json(error, code))
            .or_else(|_| writeln!(std::io::stderr(), "{}", text(error))),
        Format::JsonOnStderr => writeln!(std::io::stderr(), "{}", json(error, code)),
        Format::Text => writeln!(std::io::stderr(), "{}", text(error)),
    };
    // A closed standard stream changes nothing: the exit code reports the failure.
    drop(written);
    code
}

/// A failure, instead of the result of a verb.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ErrorOutput<'a> {
    /// Always `error-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "error-v1")))]
    format_version: &'static str,
    /// Always false.
    ok: bool,
    /// What failed.
    error: ErrorDetail<'a>,
    /// The exit code.
    resolution: Resolution,
}

/// What failed.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ErrorDetail<'a> {
    /// The kind of the failure: `input`, `integrity`, `safety_violation`, `unsupported`, `system` or `interrupted`.
    kind: &'static str,
    /// What failed, where and why.
    message: String,
    /// What to do; absent if nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

fn json(error: &Error, code: u8) -> String {
    let message = match error.note() {
        Some(note) => format!("{error}; {note}"),
        None => error.to_string(),
    };
    let output = ErrorOutput {
        format_version: "error-v1",
        ok: false,
        error: ErrorDetail { kind: error.kind().name(), message, hint: error.hint() },
        resolution: Resolution { exit_code: code },
    };
    // Strings and numbers are always written.
    ui::json_line(&output).unwrap_or_default()
}

fn text(error: &Error) -> String {
    let label = console::style("error").red().bold().for_stderr();
    let line = format!("{label}[{}]: {}", error.kind().name(), ui::printable(&error.to_string()));
    let help = console::style("help").green().bold().for_stderr();
    let help = error.hint().map(|hint| format!("{help}: {}", ui::printable(hint)));
    let note = error.note().map(|note| format!("note: {}", ui::printable(note)));
    [Some(line), help, note].into_iter().flatten().collect::<Vec<_>>().join("\n")
}
