//! The type of numbers that losses are computed in.

use invarlock_error::Error;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A type of numbers of the arithmetic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub enum ComputeDtype {
    /// IEEE 754 single precision.
    #[default]
    #[serde(rename = "float32")]
    Float32,
    /// Each number of a matrix product is a sum of two bfloat16 numbers, of whose four products three are added in single precision, on the matrix
    /// unit AMX of the processor. Everything else is single precision.
    #[serde(rename = "bf16x3")]
    Bf16x3,
}

/// Types of other evaluators.
const OTHERS: [&str; 5] = ["auto", "float64", "float16", "bfloat16", "tf32"];

impl ComputeDtype {
    /// Whether it is the default, which a job does not state.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// PyTorch's name, which reports have.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bf16x3 => "bf16x3",
        }
    }
}

impl FromStr for ComputeDtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let error = match name {
            "float32" => return Ok(Self::Float32),
            "bf16x3" => return Ok(Self::Bf16x3),
            other if OTHERS.contains(&other) => {
                Error::unsupported(format!("{name}: losses are computed in float32 or bf16x3 only"))
            }
            _ => Error::input(format!("{name}: unknown type of numbers")),
        };
        Err(error.with_hint("use float32, in which every checkpoint is measured, or bf16x3"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;

    #[test]
    fn other_types_are_refused_by_name() {
        assert_eq!("float32".parse::<ComputeDtype>().expect("supported"), ComputeDtype::default());
        for dtype in [ComputeDtype::Float32, ComputeDtype::Bf16x3] {
            assert_eq!(dtype.name().parse::<ComputeDtype>().expect("supported"), dtype);
            assert_eq!(serde_json::to_value(dtype).expect("JSON"), dtype.name());
        }
        for name in OTHERS {
            let error = name.parse::<ComputeDtype>().expect_err(name);
            assert_eq!(error.kind(), Kind::Unsupported);
            assert!(error.message().starts_with(name), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("float32")));
        }
        for name in ["fp16", "half", "F32", ""] {
            assert_eq!(name.parse::<ComputeDtype>().expect_err(name).kind(), Kind::Input);
        }
    }
}
