//! `stop` and `kill`.

use crate::error::Result;
use crate::running::{self, Running};
use crate::ui;
use std::time::Duration;

/// How long before it is killed a run may take to end by itself after its command was killed: its launcher removes and records it.
const CLEAN_UP: Duration = Duration::from_secs(2);

/// Ends runs. A run that kills its command after the same time, or earlier, gets time to end by itself.
pub fn stop(which: &[String], time: Option<Duration>) -> Result<u8> {
    each(which, |running| {
        let own = Duration::from_secs(running.stop_timeout);
        running.stop(time.map(|time| if time < own { time } else { time + CLEAN_UP }))
    })
}

/// Kills runs.
pub fn kill(which: &[String]) -> Result<u8> {
    each(which, Running::kill)
}

/// All are found before one is ended. What the caller named is printed, as engines do.
fn each(which: &[String], end: impl Fn(&Running) -> Result<()>) -> Result<u8> {
    let found = which.iter().map(|which| running::find(which)).collect::<Result<Vec<_>>>()?;
    for (named, running) in which.iter().zip(&found) {
        end(running)?;
        ui::out(&ui::printable(named));
    }
    Ok(0)
}
