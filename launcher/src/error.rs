//! How the command line reports an error, and with which exit code.

use crate::args::{Cli, Report};
use std::io::Write as _;
use std::process::ExitCode;

pub use invarlock_error::{Error, Kind, Result};

/// The output of a verb exists and `--force` was not passed. The Python package gives exit code 1 for it.
#[derive(Debug, thiserror::Error)]
#[error("the file exists")]
pub struct OutputExists;

/// Exit code of our own failures where the workload's code is the command's.
pub const OURS: u8 = 125;

/// Prints the error, as the command reports, and gives the exit code.
pub fn report(error: &Error, cli: &Cli) -> ExitCode {
    let code = match error.kind() {
        kind @ Kind::Interrupted(_) => kind.exit_code(),
        _ if cli.passes_codes_on() => OURS,
        _ if error.find::<OutputExists>().is_some() => 1,
        kind => kind.exit_code(),
    };
    let json = || {
        let mut value = serde_json::json!({
            "ok": false,
            "error": {"kind": error.kind().name(), "message": error.to_string()},
            "resolution": {"exit_code": code},
        });
        if let Some(hint) = error.hint() {
            value["error"]["hint"] = hint.into();
        }
        crate::ui::ascii(&value.to_string())
    };
    let written = match cli.report() {
        Report::JsonToOutput => writeln!(std::io::stdout(), "{}", json()),
        Report::JsonToError => writeln!(std::io::stderr(), "{}", json()),
        Report::Text => {
            let label = console::style("error").red().bold().for_stderr();
            let (kind, message) = (error.kind().name(), crate::ui::printable(&error.to_string()));
            let help = console::style("help").green().bold().for_stderr();
            let hint = error.hint().map(|hint| format!("\n{help}: {}", crate::ui::printable(hint)));
            writeln!(std::io::stderr(), "{label}[{kind}]: {message}{}", hint.unwrap_or_default())
        }
    };
    // Nobody left to tell when the terminal is gone.
    drop(written);
    ExitCode::from(code)
}
