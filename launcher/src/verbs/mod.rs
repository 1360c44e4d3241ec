//! One file a verb. A verb gives its exit code; an error becomes one in [`crate::error`].

mod doctor;
mod evaluate;
mod images;
mod learn;
mod probe;
mod report;
mod runtime;
mod transport;
mod verify;

use crate::args::{AdvancedCommand, Cli, Command, ReportCommand};
use crate::error::Result;
use crate::policy::Policy;
use crate::ui;
use clap::CommandFactory as _;

/// Runs the verb that was typed.
pub fn run(cli: &Cli, policy: &Policy) -> Result<u8> {
    match &cli.command {
        Command::Evaluate(args) => evaluate::run(args, policy),
        Command::Verify(args) => verify::run(args),
        Command::Report(ReportCommand::Html { input, output, force }) => report::html(input, output, *force),
        Command::Runtime(command) => runtime::run(command, policy),
        Command::Doctor(args) => doctor::run(args),
        Command::Advanced(AdvancedCommand::RuntimeVerify {
            report,
            manifest,
            expected_runtime_image_digest,
            json,
        }) => verify::runtime_verify(report, manifest, expected_runtime_image_digest.as_deref(), *json),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "invarlock", &mut std::io::stdout());
            Ok(0)
        }
        Command::Version => {
            ui::out(&format!("InvarLock {} · schema=v1", env!("CARGO_PKG_VERSION")));
            Ok(0)
        }
    }
}
