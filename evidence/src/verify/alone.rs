//! A report on its own: its schema, and whether its values follow from each other. Nothing beside it is read.

use super::{RuntimeProvenance, VerifyOptions, strict};
use crate::format::untrusted::Node;
use crate::gates;
use serde_json::Value;

/// Contradictions within a report that is valid by its schema, under its own profile and tier. Gates that fail are none.
pub fn contradictions(report: &Value) -> Vec<String> {
    let options = VerifyOptions {
        profile: gates::profile(report),
        runtime_provenance: RuntimeProvenance::Host,
        ..VerifyOptions::default()
    };
    let found = strict::check(Node::root("", report), &options, None);
    found.mismatches.into_iter().chain(found.failures).collect()
}
