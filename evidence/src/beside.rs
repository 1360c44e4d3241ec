//! The runtime manifest that lies beside a report, and whether it is that of the report.
//!
//! Readers that show a report, rather than verify it, use nothing of a manifest that binds another report.

use crate::format::untrusted::Node;
use serde_json::Value;

/// The title of the warning about a manifest of another report.
pub const UNBOUND: &str = "The runtime manifest is not that of this report";

/// What that means.
pub const UNBOUND_MEANING: &str = "The manifest beside the report contains the digest of another report, so it does not say how this \
                                   report was measured. It is not shown.";

/// A manifest beside a report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Beside<'a> {
    /// There is none.
    Missing,
    /// It contains the digest of another report, or none.
    OfAnotherReport,
    /// It contains the digest of this report.
    OfThisReport(&'a Value),
}

impl<'a> Beside<'a> {
    /// Compares the digest in a manifest with that of the report's bytes, hexadecimal.
    pub fn new(manifest: Option<&'a Value>, report_sha256: &str) -> Self {
        match manifest {
            None => Beside::Missing,
            Some(manifest) if Node::root("", manifest).at("report.sha256") == report_sha256 => {
                Beside::OfThisReport(manifest)
            }
            Some(_) => Beside::OfAnotherReport,
        }
    }

    /// The manifest, if it is that of the report.
    pub fn manifest(self) -> Option<&'a Value> {
        match self {
            Beside::OfThisReport(manifest) => Some(manifest),
            Beside::Missing | Beside::OfAnotherReport => None,
        }
    }

    /// What is wrong with it; none if it is that of the report.
    pub fn fault(self) -> Option<&'static str> {
        match self {
            Beside::Missing => Some("There is no runtime manifest beside the report"),
            Beside::OfAnotherReport => Some(UNBOUND),
            Beside::OfThisReport(_) => None,
        }
    }
}
