//! The formats of evidence, one file a format.
//!
//! The types say what this project writes: members in the order in which they are written, with unit and meaning. Evidence that another
//! machine wrote may lack members or contain others; it is read through [`untrusted`].

#[cfg(feature = "verify")]
pub(crate) mod canonical;
pub mod check_report;
pub mod choices;
pub mod classification;
pub mod compute_dtype;
pub mod dataset;
pub mod delegated;
pub mod devices;
pub mod evaluation_report;
pub mod guard_request;
pub mod masking;
pub mod measurement;
pub mod metrics;
pub mod objective;
pub mod observations;
pub mod plan;
pub mod role;
pub mod run_report;
pub mod runtime_manifest;
pub mod statistics;
pub mod subject_tokenizer;
pub mod tiers;
pub mod trust_profile;
pub mod untrusted;
mod used_ids;
pub mod warning;

use serde::Serialize;
use serde_json::Value;

/// A value of one of the formats as JSON. Numbers that are not finite become null.
pub fn to_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// The number of bytes of a value as compact JSON.
#[cfg(feature = "verify")]
pub(crate) fn json_length(value: &impl Serialize) -> u64 {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value).map_or(0, |()| length.0)
}

/// Counts what is written.
#[cfg(feature = "verify")]
struct Length(u64);

#[cfg(feature = "verify")]
impl std::io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The bytes of a report: compact JSON, whose numbers are read back exactly, and a newline.
pub fn to_bytes(report: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(report).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
