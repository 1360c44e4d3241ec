//! Core dumps: no crash of the workload, and none of this program, starts a core handler or writes a file.
//!
//! `kernel.core_pattern` names what the kernel does with the memory of a crashed process. It belongs to the host, so a container has the
//! same one.
//!
//! | pattern | what prevents a dump |
//! |---|---|
//! | a file | `RLIMIT_CORE` below one page |
//! | `|program`, which the kernel starts as root of the host | `RLIMIT_CORE` of exactly 1: the kernel's own sign that the process is a core handler; the profile `general` denies changing it |
//! | `@socket`, to which the kernel connects (Linux 6.16) | nothing; a run is refused |
//!
//! In addition, `coredump_filter` 0 leaves no memory in a dump, should the pattern change during a run.

use crate::rlimit::{self, Rlimit, RlimitKind, RlimitValue};
use crate::{hooks, procfs};
use invarlock_error::{Context as _, Error, Result};
use rustix::process::Resource;
use serde::{Deserialize, Serialize};

const PATTERN: &str = "/proc/sys/kernel/core_pattern";
const FILTER: &str = "/proc/self/coredump_filter";
/// The filter of the workload: no kind of memory.
const NO_MEMORY: u64 = 0;

/// What the kernel does with the memory of a crashed process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoreHandler {
    /// Writes a file.
    File,
    /// Starts a program.
    Program,
    /// Connects to a socket.
    Socket,
}

/// The observed state of core dumps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreDumps {
    /// The handler of this machine.
    pub handler: CoreHandler,
    /// `RLIMIT_CORE` of the workload in bytes.
    pub limit: Option<RlimitValue>,
    /// `coredump_filter` of the workload: the kinds of memory that a dump contains, as bits.
    pub filter: u64,
}

impl CoreHandler {
    /// The handler of this machine.
    pub(crate) fn of_machine() -> Result<Self> {
        let pattern = procfs::read(PATTERN).with_context(|| format!("reading {PATTERN}"))?;
        Ok(Self::of_pattern(&pattern))
    }

    fn of_pattern(pattern: &str) -> Self {
        match pattern.trim_start().as_bytes() {
            [b'|', ..] => Self::Program,
            [b'@', ..] => Self::Socket,
            _ => Self::File,
        }
    }

    /// Fails if a crash of a process with this limit of core dumps would reach the handler.
    pub(crate) fn require_unreachable(self, limit: Option<RlimitValue>) -> Result<()> {
        let refused = |why: &str, hint: &str| {
            let message =
                format!("kernel.core_pattern {why}, so a crash of the workload would send its memory there");
            Err(Error::unsupported(message).in_control("core dumps").with_hint(hint))
        };
        let one = RlimitValue { soft: Some(1), hard: Some(1) };
        match (self, limit) {
            (Self::File, Some(limit)) if limit.hard.is_some_and(|bytes| bytes <= 1) => Ok(()),
            (Self::Program, Some(limit)) if limit == one => Ok(()),
            (Self::Program, _) => refused(
                "starts a program, and the hard limit of core dumps of this user is 0",
                "allow a limit of 1, which prevents dumps (`* hard core 1` in /etc/security/limits.conf), or set kernel.core_pattern to `core`",
            ),
            (Self::File, _) => refused("names a file, and core dumps are not limited", "report this error"),
            (Self::Socket, _) => refused(
                "names a socket, which no limit of a process prevents",
                "ask the administrator for a pattern without a socket, such as `sysctl -w kernel.core_pattern=core`",
            ),
        }
    }
}

/// Fails unless no crash of a run with these limits reaches a core handler.
pub(crate) fn require(rlimits: &[Rlimit]) -> Result<()> {
    CoreHandler::of_machine()?.require_unreachable(rlimit::value(rlimits, RlimitKind::Core))
}

/// What prevents dumps on this machine, for [`crate::doctor`].
pub(crate) fn check() -> std::result::Result<String, String> {
    let limit = rlimit::for_core_dumps();
    let handler = CoreHandler::of_machine().map_err(|e| e.to_string())?;
    handler.require_unreachable(Some(limit)).map_err(|e| e.to_string())?;
    Ok(match handler {
        CoreHandler::File => "crashes write no file: the limit of core dumps is below one page".into(),
        _ => "crashes do not start the program of kernel.core_pattern: the limit of core dumps is 1".into(),
    })
}

/// Sets the limit of this process and of all that it starts, so that a crash of this program reaches no handler either. Best effort: a hard
/// limit of 0 cannot be raised.
pub(crate) fn prevent_own() {
    let own = rustix::process::getrlimit(Resource::Core);
    let soft = own.maximum.map_or(1, |hard| hard.min(1));
    if own.current != Some(soft) {
        _ = rustix::process::setrlimit(
            Resource::Core,
            rustix::process::Rlimit { current: Some(soft), maximum: own.maximum },
        );
    }
}

/// Leaves no memory in a dump of this process, or of a program that it executes.
pub(crate) fn exclude_memory() -> Result<()> {
    if hooks::off("core dump filter") {
        return Ok(());
    }
    std::fs::write(FILTER, NO_MEMORY.to_string())
        .with_context(|| format!("writing {FILTER}"))
        .in_control("core dumps")
}

impl CoreDumps {
    /// Observes process `pid`.
    pub(crate) fn of(pid: i32, limits: &[Rlimit]) -> Result<Self> {
        let path = format!("/proc/{pid}/coredump_filter");
        let text = procfs::read(&path).with_context(|| format!("observing {path}"))?;
        let filter = u64::from_str_radix(text.trim(), 16)
            .map_err(|_| Error::system(format!("observing {path}: {text:?}")))?;
        let limit = rlimit::value(limits, RlimitKind::Core);
        Ok(CoreDumps { handler: CoreHandler::of_machine()?, limit, filter })
    }

    /// Whether a crash reaches no handler and a dump would contain no memory.
    pub(crate) fn are_prevented(&self) -> bool {
        self.filter == NO_MEMORY && self.handler.require_unreachable(self.limit).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::CoreHandler::{self, File, Program, Socket};
    use super::RlimitValue;

    #[test]
    fn reads_the_kind_of_handler() {
        for (pattern, handler) in [
            ("core\n", File),
            ("/var/crash/core.%p\n", File),
            ("|/usr/lib/systemd/systemd-coredump %P %u\n", Program),
            ("@/run/systemd/coredump.socket\n", Socket),
            ("@@/run/coredump.socket\n", Socket),
            ("\n", File),
        ] {
            assert_eq!(CoreHandler::of_pattern(pattern), handler, "{pattern}");
        }
    }

    #[test]
    fn only_a_limit_of_one_keeps_a_program_from_starting() {
        let limit = |soft, hard| Some(RlimitValue { soft, hard });
        let one = limit(Some(1), Some(1));
        assert!(Program.require_unreachable(one).is_ok());
        for other in
            [limit(Some(0), Some(0)), limit(Some(0), Some(1)), limit(Some(1), None), limit(None, None), None]
        {
            assert!(Program.require_unreachable(other).is_err(), "{other:?}");
        }
        assert!(File.require_unreachable(limit(Some(0), Some(0))).is_ok());
        assert!(Socket.require_unreachable(one).is_err());
    }
}
