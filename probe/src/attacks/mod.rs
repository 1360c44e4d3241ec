//! The table of attacks: the control that is attacked, what the attacker does, and what should result. One file for each group of
//! controls.

mod binds;
mod identity;
mod kernel_files;
mod limits;
mod mounts;
mod namespaces;
mod network;
mod shared;
mod syscalls;

use crate::answer::Answer;
use crate::findings::Findings;
use crate::sys;
use rustix::fs::{FileType, Mode};
use std::sync::OnceLock;

use mounts::run_script;
pub(crate) use network::interfaces;

/// One attack.
pub(crate) struct Attack {
    /// The identifier, as in docs/attacks.md.
    pub(crate) id: &'static str,
    /// The control of the boundary that is attacked.
    pub(crate) control: &'static str,
    /// What is tried, for a human reader.
    pub(crate) what: &'static str,
    pub(crate) expect: Expect,
    /// What the attacker does, in a child process. None if the attack is only observed from outside or has a run of its own.
    pub(crate) run: Option<fn() -> Answer>,
}

/// What was observed and whether it is good, from the findings and the attacker's answer; none if nothing was observed.
pub(crate) type Check = fn(&Findings, Option<&Answer>) -> Option<(String, bool)>;

/// What an attack should result in.
pub(crate) enum Expect {
    /// The attempt fails with one of these errnos.
    Errno(&'static [i32]),
    /// The process is killed by SIGSYS.
    KilledBySigsys,
    /// The attack reads this text.
    Text(&'static str),
    /// The attack reads a text that depends on the run.
    TextOf(fn(&Findings) -> String),
    /// The attack counts at most this number.
    AtMost(fn(&Findings) -> u64),
    /// The text describes what the check, made outside the container, expects.
    Outside(&'static str, Check),
}

const fn attack(
    control: &'static str,
    id: &'static str,
    what: &'static str,
    expect: Expect,
    run: Option<fn() -> Answer>,
) -> Attack {
    Attack { id, control, what, expect, run }
}

/// The attacks in a run with a directory of the host that it can write, and with what programs expect of an OCI runtime.
pub(crate) fn in_binds() -> impl Iterator<Item = &'static Attack> {
    binds::BINDS.iter().chain(kernel_files::SYSTEM)
}

/// The attacks that need nothing that other runs do not have, in the order of the printed table.
pub(crate) fn in_every_run() -> impl Iterator<Item = &'static Attack> {
    let controls = [
        namespaces::NAMESPACES,
        network::NETWORK,
        identity::IDENTITY,
        identity::CAPABILITIES,
        syscalls::SYSTEM_CALLS,
        mounts::ROOT,
        mounts::INPUTS,
        mounts::OUTPUT,
        mounts::SCRATCH,
        kernel_files::KERNEL_FILES,
        identity::DESCRIPTORS_ENVIRONMENT,
        limits::LIMITS,
        shared::SHARED,
        limits::LIFE,
    ];
    controls.into_iter().flatten()
}

static DESCRIPTORS: OnceLock<String> = OnceLock::new();

/// Records the open descriptors of this process. Must be called before the attacker opens any.
pub(crate) fn record_descriptors() {
    let open = (0..1024).filter(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    let open: Vec<String> = open.map(|fd| fd.to_string()).collect();
    _ = DESCRIPTORS.set(open.join(" "));
}

/// Creates a special file; a character device gets the number of `/dev/null`.
pub(crate) fn make_node(path: &str, kind: FileType) -> std::io::Result<()> {
    let null = rustix::fs::makedev(1, 3);
    let device = if kind == FileType::CharacterDevice { null } else { 0 };
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(0o666), device)?;
    Ok(())
}

/// Makes a system call by its number.
fn call(number: libc::c_long, args: &mut [sys::Arg<'_>]) -> Answer {
    match sys::call(number, args) {
        Ok(_) => Answer::Succeeded,
        Err(errno) => Answer::Failed(errno),
    }
}

fn open_for_reading(path: &str) -> Answer {
    Answer::of(std::fs::File::open(path))
}

fn open_for_writing(path: &str) -> Answer {
    Answer::of(std::fs::OpenOptions::new().write(true).open(path))
}

fn write(path: &str) -> Answer {
    Answer::of(std::fs::write(path, "written by the attacker"))
}

/// The mount options of a mount point that restrict it.
fn mount_options(target: &str) -> Answer {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The last line of a mount point is its topmost mount.
    let line = text.lines().rev().find(|line| line.split(' ').nth(4) == Some(target));
    let options = line.and_then(|line| line.split(' ').nth(5)).unwrap_or_default();
    let options: Vec<&str> = options.split(',').collect();
    let restricting =
        ["ro", "nosuid", "nodev", "noexec"].into_iter().filter(|option| options.contains(option));
    Answer::Text(restricting.collect::<Vec<_>>().join(","))
}

/// The size of a file; a missing file counts as empty.
fn content(path: &str) -> Answer {
    match std::fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Answer::Text("empty".into()),
        Ok(bytes) => Answer::Text(format!("{} bytes", bytes.len())),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Answer::Text("empty".into()),
        Err(e) => Answer::Failed(e.raw_os_error().unwrap_or(0)),
    }
}

/// The value of a line of `/proc/self/status`.
fn status(key: &str) -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap_or("unknown");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The target of a symbolic link, or why it cannot be read.
fn link_target(path: &str) -> Answer {
    match std::fs::read_link(path) {
        Ok(target) => Answer::Text(target.display().to_string()),
        Err(e) => Answer::Text(e.to_string()),
    }
}

/// The names, or "none".
fn names_or_none(names: &[impl AsRef<str>]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
}

/// Good if a comparison of the host before and after lists no change.
fn unchanged(changes: &[String]) -> Option<(String, bool)> {
    Some((if changes.is_empty() { "unchanged".into() } else { changes.join(" ") }, changes.is_empty()))
}
