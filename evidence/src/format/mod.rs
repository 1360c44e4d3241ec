//! The formats of evidence, one file a format.
//!
//! The types say what this project writes: members in the order in which they are written, with unit and meaning. Evidence that another
//! machine wrote may lack members or contain others; it is read through [`untrusted`].

pub mod check_report;
pub mod evaluation_report;
pub mod measurement;
pub mod observations;
pub mod plan;
pub mod role;
pub mod run_report;
pub mod runtime_manifest;
pub mod trust_profile;
pub mod untrusted;
pub mod warning;

use serde::Serialize;
use serde_json::Value;

/// A value of one of the formats as JSON. Numbers that are not finite become null.
pub fn to_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}
