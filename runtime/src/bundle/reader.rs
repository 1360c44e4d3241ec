//! What the readers of the members share: the limits, what is not granted, and errors.

use crate::rlimit_kind::LowerRlimit;
use invarlock_error::Error;
use serde::Serialize;
use std::fmt;

/// The limits of a configuration. None means no limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BundleLimits {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Processors.
    pub cpus: Option<f64>,
    /// Open files of a process.
    pub open_files: Option<u64>,
    /// Other resource limits.
    pub rlimits: Vec<LowerRlimit>,
}

/// A member of a configuration, or a value of one, that the container runs without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct NotGranted {
    /// The member, such as `process.capabilities`.
    pub member: String,
    /// The value.
    pub value: String,
}

impl fmt::Display for NotGranted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.member, self.value)
    }
}

/// Collects what is not granted.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) not_granted: Vec<NotGranted>,
}

impl Reader {
    /// The container runs without this value. Each is listed once.
    pub(super) fn without(&mut self, member: &str, value: impl fmt::Display) {
        let one = NotGranted { member: member.to_owned(), value: value.to_string() };
        if !self.not_granted.contains(&one) {
            self.not_granted.push(one);
        }
    }
}

/// The error for a value that a run can neither grant nor leave out.
pub(super) fn refused(member: &str, value: impl fmt::Debug, why: &str) -> Error {
    let value = format!("{value:?}");
    let shown: String = value.chars().take(200).collect();
    Error::input(format!("config.json: {member} {shown} is not granted: {why}"))
        .with_hint(format!("remove {member} from config.json if the program can run without it"))
}

/// The error for a member whose value is invalid.
pub(super) fn invalid(member: &str, why: impl fmt::Display) -> Error {
    Error::input(format!("config.json: {member}: {why}"))
}
