//! The two sides of an evaluation.

use serde::{Deserialize, Serialize};

/// Which of the two checkpoints is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The checkpoint compared with; it selects the windows.
    Baseline,
    /// The checkpoint under test; it is measured on the baseline's windows.
    Subject,
}

impl Role {
    /// Its name in messages and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Role::Baseline => "baseline",
            Role::Subject => "subject",
        }
    }
}
