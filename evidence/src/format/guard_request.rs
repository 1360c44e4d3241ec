//! How the guards are asked to judge.

use super::evaluation_report::Calibration;
use invarlock_error::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// With what the guards compare the subject.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum GuardMode {
    /// With the baseline.
    #[default]
    Compare,
    /// With itself, as InvarLock 0.12 does.
    Upstream,
}

/// What the guards are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GuardRequest {
    /// With what they compare.
    pub mode: GuardMode,
    /// Windows on which the variance guard of [`GuardMode::Upstream`] tries factors; absent: those of the tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

impl GuardRequest {
    /// Whether it is the default, which files do not state.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl GuardMode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compare => "compare",
            Self::Upstream => "upstream",
        }
    }
}

impl fmt::Display for GuardMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for GuardMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "compare" => Ok(Self::Compare),
            "upstream" => Ok(Self::Upstream),
            _ => Err(Error::input(format!("{name:?} is not a mode of the guards"))
                .with_hint("use compare or upstream")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_by_name() {
        for mode in [GuardMode::Compare, GuardMode::Upstream] {
            assert_eq!(mode.as_str().parse::<GuardMode>().expect("known"), mode);
            assert_eq!(serde_json::to_value(mode).expect("JSON"), mode.as_str());
        }
        for name in ["Compare", "", "baseline"] {
            assert!(name.parse::<GuardMode>().is_err(), "{name}");
        }
    }
}
