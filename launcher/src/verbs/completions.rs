//! `invarlock completions`: the completion script of a shell.

use crate::args;
use crate::error::Result;

/// Prints the script.
pub fn run(shell: clap_complete::Shell) -> Result<u8> {
    clap_complete::generate(shell, &mut args::definition(), "invarlock", &mut std::io::stdout());
    Ok(0)
}
