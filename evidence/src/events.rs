//! What a measuring container prints on its standard output, one JSON object a line. Untrusted when read.

use serde::{Deserialize, Serialize};

/// One line of progress or the reason for a failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// `done` of `total` units of `phase` (`load`, `tokenize`, `preview`, `final`, `guards`) are finished.
    Progress {
        /// Phase name.
        phase: String,
        /// Units finished.
        done: u64,
        /// Units in all.
        total: u64,
    },
    /// The run failed; nothing was written to `/out`.
    Error {
        /// Whose fault it is.
        kind: ErrorKind,
        /// What was being done, to what, why it failed, what to do.
        message: String,
    },
}

/// Kinds of failure an evaluator reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The user can mend the input.
    Input,
    /// Bytes are not what they were said to be.
    Integrity,
    /// Looks like an attack.
    Safety,
    /// This evaluator does not do that.
    Unsupported,
    /// The machine failed.
    System,
}
