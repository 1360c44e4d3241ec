//! What the standard streams of a command are connected with.

use crate::error::{Context as _, Result};
use invarlock_runtime::Stdio;
use rustix::fs::FileType;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

/// Standard input is passed on with `interactive`. Without it, input that is there and not passed on is reported.
pub fn of(interactive: bool) -> Result<Stdio> {
    let stdin = std::io::stdin();
    if interactive {
        return Ok(Stdio::Input(stdin.as_fd().try_clone_to_owned().context("duplicating standard input")?));
    }
    let kind = rustix::fs::fstat(&stdin).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if stdin.is_terminal() || matches!(kind, Ok(FileType::Fifo | FileType::RegularFile)) {
        // A closed standard error changes nothing about the run.
        drop(writeln!(
            std::io::stderr(),
            "invarlock: the command does not get standard input; --interactive (-i) passes it on"
        ));
    }
    Ok(Stdio::Output)
}
