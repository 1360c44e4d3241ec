//! The kinds of failure and their exit codes.

use serde::{Deserialize, Serialize};

/// The kind of a failure. The exit code of a command follows from the kind alone.
///
/// Serialized in snake case, as the events of an evaluator contain it; [`Kind::name`] is the name in `--json` output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The user can fix it: a wrong argument, file or setting.
    Input,
    /// Bytes, or the kernel's view of a container, differ from what was declared.
    Integrity,
    /// A possible attack.
    Safety,
    /// This machine or this version does not support it.
    Unsupported,
    /// The machine failed, or a limit ended the run.
    System,
    /// A signal with this number stopped the command. Never deserialized.
    #[serde(skip)]
    Interrupted(i32),
}

impl Kind {
    /// The name of the kind in `error.kind` of JSON output and in `error[…]` on a terminal.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Integrity => "integrity",
            Self::Safety => "safety_violation",
            Self::Unsupported => "unsupported",
            Self::System => "system",
            Self::Interrupted(_) => "interrupted",
        }
    }

    /// Exit code of a command that fails with this kind: 2 for input, 128 + n for signal n, otherwise 3.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Input => 2,
            Self::Integrity | Self::Safety | Self::Unsupported | Self::System => 3,
            Self::Interrupted(signal) => 128 + u8::try_from(signal).unwrap_or(1),
        }
    }
}
