//! Every attack: what it goes against, what it does inside, and what should come of it. One file a group of rows.

mod files;
mod kernel;
mod process;
mod resources;

use super::{Answer, Facts, sys};
use rustix::fs::{FileType, Mode};
use std::sync::OnceLock;

pub(super) use process::interfaces;

/// Attacks that have a run of their own, because it ends by them.
pub(super) const ALONE: [&str; 5] = ["memory", "processors", "time", "link", "fifo"];

/// Those of them that are about what is left in `/out`.
pub(super) const BAD_OUTPUT: [&str; 2] = ["link", "fifo"];

/// One attack.
pub(super) struct Attack {
    pub(super) id: &'static str,
    /// Row of the boundary.
    pub(super) row: &'static str,
    pub(super) what: &'static str,
    pub(super) expect: Expect,
    /// What the attacker does, in a process of its own. None where it is seen only from outside, or has a run of its own.
    pub(super) run: Option<fn() -> Answer>,
}

/// Something seen, and whether it is good; none where nothing was seen.
pub(super) type Look = fn(&Facts, Option<&Answer>) -> Option<(String, bool)>;

/// What should come of an attack.
pub(super) enum Expect {
    /// One of these errnos.
    Refused(&'static [i32]),
    /// SIGSYS.
    Killed,
    /// This text.
    Says(&'static str),
    /// A text that depends on the run.
    SaysAs(fn(&Facts) -> String),
    /// A number that is not larger.
    AtMost(fn(&Facts) -> u64),
    /// What only the outside can tell.
    Outside(&'static str, Look),
}

const fn attack(
    row: &'static str,
    id: &'static str,
    what: &'static str,
    expect: Expect,
    run: Option<fn() -> Answer>,
) -> Attack {
    Attack { id, row, what, expect, run }
}

/// All of them, in the order of the table.
pub(super) fn all() -> impl Iterator<Item = &'static Attack> {
    let lists = [
        process::NAMESPACES,
        process::NETWORK,
        process::IDENTITY,
        process::CAPABILITIES,
        kernel::CALLS,
        files::ROOT,
        files::INPUTS,
        files::OUTPUT,
        files::SCRATCH,
        files::KERNEL_FILES,
        process::OWN,
        resources::LIMITS,
        resources::LIFE,
    ];
    lists.into_iter().flatten()
}

static DESCRIPTORS: OnceLock<String> = OnceLock::new();

/// Notes what this process has open, before it opens anything.
pub(super) fn remember_descriptors() {
    let open = (0..1024).filter(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    let open: Vec<String> = open.map(|fd| fd.to_string()).collect();
    _ = DESCRIPTORS.set(open.join(" "));
}

pub(super) fn make_node(path: &str, kind: FileType) -> std::io::Result<()> {
    let null = rustix::fs::makedev(1, 3);
    let device = if kind == FileType::CharacterDevice { null } else { 0 };
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(0o666), device)?;
    Ok(())
}

/// A system call, by number.
fn call(number: libc::c_long, args: &mut [sys::Arg<'_>]) -> Answer {
    match sys::call(number, args) {
        Ok(_) => Answer::Done,
        Err(errno) => Answer::Refused(errno),
    }
}

fn opened(path: &str, write: bool) -> Answer {
    Answer::of(std::fs::OpenOptions::new().read(!write).write(write).open(path))
}

fn read(path: &str) -> Answer {
    match std::fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Answer::Said("empty".into()),
        Ok(bytes) => Answer::Said(format!("{} bytes", bytes.len())),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Answer::Said("empty".into()),
        Err(e) => Answer::Refused(e.raw_os_error().unwrap_or(0)),
    }
}

/// The value of a line of `/proc/self/status`.
fn status(key: &str) -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).unwrap_or("unknown");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
