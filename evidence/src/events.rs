//! What a measuring container prints on its standard output, one JSON object a line. Untrusted when read.

use invarlock_error::Kind;
use serde::{Deserialize, Serialize};

/// One line of progress or the reason for a failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// `done` of `total` units of `phase` are finished: bytes of `load`, texts of `tokenize`, tokens of `preview` and `final`, steps of `guards`.
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
        /// The kind of failure.
        #[cfg_attr(feature = "schemas", schemars(with = "String"))]
        kind: Kind,
        /// What was being done, to what, and why it failed.
        message: String,
        /// What the user can do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        /// A cause that the launcher handles.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
    },
}

/// A cause of a failure that the launcher handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The output directory is full.
    OutputFull,
}
