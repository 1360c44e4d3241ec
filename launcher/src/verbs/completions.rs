//! `invarlock completions`: the completion script of a shell.

use crate::args;
use crate::error::Result;
use crate::ui;

/// Prints the script.
pub fn run(shell: clap_complete::Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::definition(), "invarlock", &mut script);
    ui::out_bytes(&script);
    Ok(0)
}
