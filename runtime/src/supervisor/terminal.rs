//! The caller's terminal. The launcher makes it raw and restores it; if it is killed, the supervisor restores it.

use crate::protocol::{self, Order};
use crate::terminal::is_raw;
use invarlock_error::{Context as _, Result};
use rustix::termios::{OptionalActions, Termios};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

/// A supervisor has one run, so it has at most one terminal.
static TERMINAL: OnceLock<(OwnedFd, Termios)> = OnceLock::new();

/// Remembers the terminal as it is, before the launcher is told to change it.
pub(super) fn remember(terminal: OwnedFd) -> Result<()> {
    let attributes =
        rustix::termios::tcgetattr(&terminal).context("reading the attributes of the caller's terminal")?;
    _ = TERMINAL.set((terminal, attributes));
    Ok(())
}

/// Waits until the launcher has restored it, and restores it if the launcher is gone. This process belongs to no terminal, so the kernel does
/// not stop it.
pub(super) fn restore(launcher: &UnixStream) {
    let Some((terminal, before)) = TERMINAL.get() else { return };
    loop {
        match protocol::receive::<Order>(launcher) {
            Ok(Some((Order::TerminalRestored, _))) => return,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    // If it is not raw any more, a shell has restored it, and may have changed it for itself.
    if rustix::termios::tcgetattr(terminal).is_ok_and(|now| is_raw(&now, before)) {
        _ = rustix::termios::tcsetattr(terminal, OptionalActions::Flush, before);
    }
}
