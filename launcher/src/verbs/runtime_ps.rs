//! `invarlock runtime ps`, `stop`, `kill` and `logs`: the commands of `runtime run` that run now.

use crate::args::{KillArgs, LogsArgs, StopArgs};
use crate::error::{Error, Result};
use crate::running::{self, Running};
use crate::ui;
use serde::Serialize;

/// Digits of an id in the table.
const SHOWN: usize = 12;

/// The output of `runtime ps --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct PsOutput<'a> {
    /// Always `runtime-ps-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-ps-v1")))]
    format_version: &'static str,
    /// The running commands, by the time of their start.
    running: &'a [Running],
}

/// Lists the running commands of this user.
pub fn list(json: bool) -> Result<u8> {
    let all = running::all()?;
    if json {
        ui::json(&PsOutput { format_version: "runtime-ps-v1", running: &all })?;
        return Ok(0);
    }
    ui::out(&format!("{:<SHOWN$}  {:<16} {:<32} {:<20} COMMAND", "ID", "NAME", "IMAGE", "STARTED"));
    for running in &all {
        let name = ui::printable(running.name.as_deref().unwrap_or("-"));
        let (image, command) = (ui::printable(&running.image), ui::printable(&running.command.join(" ")));
        ui::out(&format!("{:.SHOWN$}  {name:<16} {image:<32} {:<20} {command}", running.id, running.started));
    }
    Ok(0)
}

/// Ends running commands.
pub fn stop(args: &StopArgs) -> Result<u8> {
    each(&args.which, |running| running.stop(args.time))
}

/// Kills running commands.
pub fn kill(args: &KillArgs) -> Result<u8> {
    each(&args.which, Running::kill)
}

/// The output of a run belongs to the caller of `runtime run`; no copy is kept, so there is nothing to show.
pub fn logs(args: &LogsArgs) -> Result<u8> {
    let which = ui::printable(&args.which);
    Err(Error::unsupported(format!("logs of {which}: the output of a run is not kept")).with_hint(
        "keep it when the run is started: `invarlock runtime run … >FILE 2>&1`, or `… 2>&1 | tee FILE`",
    ))
}

/// All are found before one is ended.
fn each(which: &[String], end: impl Fn(&Running) -> Result<()>) -> Result<u8> {
    let found = which.iter().map(|which| running::find(which)).collect::<Result<Vec<_>>>()?;
    for running in &found {
        end(running)?;
        ui::out(&running.id);
    }
    Ok(0)
}
