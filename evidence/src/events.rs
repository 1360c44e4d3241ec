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
    /// Windows are finished. The launcher keeps their losses, so that a measurement that is interrupted can resume.
    Losses(Finished),
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

/// Consecutive finished windows of an arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Finished {
    /// The arm.
    pub arm: ArmName,
    /// Position of the first window in the arm.
    pub first: usize,
    /// The loss of each, nats a predicted token; at most [`EVENT_LOSSES`](crate::journal::EVENT_LOSSES).
    pub losses: Vec<f64>,
    /// Version of the evaluator.
    pub evaluator: String,
    /// Its matrix kernel.
    pub kernel: String,
}

/// An arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ArmName {
    /// The windows that check drift.
    Preview,
    /// The windows that are gated on.
    Final,
}

/// A cause of a failure that the launcher handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The output directory is full.
    OutputFull,
}
