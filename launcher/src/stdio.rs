//! What the standard streams of a command are connected with.

use crate::args::StreamArgs;
use crate::error::{Context as _, Error, Result};
use invarlock_runtime::{CallerTerminal, Stdio};
use rustix::fs::FileType;
use signal_hook::consts::SIGWINCH;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Standard input is passed on with `interactive`. Without it, input that is there and not passed on is reported.
pub fn of(args: &StreamArgs) -> Result<Stdio> {
    let stdin = std::io::stdin();
    if !args.interactive {
        report_unused(stdin.as_fd(), stdin.is_terminal());
    }
    if args.tty {
        return terminal(args.interactive).map(Stdio::Terminal);
    }
    Ok(match args.interactive {
        true => Stdio::Input(stdin.as_fd().try_clone_to_owned().context("duplicating standard input")?),
        false => Stdio::Output,
    })
}

fn report_unused(stdin: BorrowedFd<'_>, is_terminal: bool) {
    let kind = rustix::fs::fstat(stdin).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if is_terminal || matches!(kind, Ok(FileType::Fifo | FileType::RegularFile)) {
        // A closed standard error changes nothing about the run.
        drop(writeln!(
            std::io::stderr(),
            "invarlock: the command does not get standard input; --interactive (-i) passes it on"
        ));
    }
}

/// The terminal of this process: standard input; without `interactive`, it may also be standard output.
fn terminal(interactive: bool) -> Result<CallerTerminal> {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let handle = if stdin.is_terminal() {
        stdin.as_fd()
    } else if !interactive && stdout.is_terminal() {
        stdout.as_fd()
    } else {
        let what = if interactive {
            "standard input is not one"
        } else {
            "neither standard input nor output is one"
        };
        return Err(Error::input(format!("--tty needs a terminal: {what}"))
            .with_hint("leave out --tty (-t), or run it from a terminal"));
    };
    let handle = handle.try_clone_to_owned().context("duplicating the terminal")?;
    let (resized, notice) = UnixStream::pair().context("creating a socket")?;
    signal_hook::low_level::pipe::register(SIGWINCH, notice).context("catching SIGWINCH")?;
    Ok(CallerTerminal { handle, interactive, resized })
}
