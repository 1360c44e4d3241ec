//! Denied system calls of a workload: on standard error and in JSON.

use crate::ui::printable;
use invarlock_evidence::format::runtime_manifest::Side;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;

/// Prints one line per denied call on standard error; `side` names the side of an evaluation.
pub fn show(denied: Option<&BTreeMap<String, u64>>, side: Option<&str>) {
    let side = side.map(|side| format!(" ({side})")).unwrap_or_default();
    for (call, count) in denied.into_iter().flatten() {
        // A closed standard error changes nothing about the run.
        drop(writeln!(std::io::stderr(), "invarlock: denied {} ×{count}{side}", printable(call)));
    }
}

/// The denied calls of both sides; null for a side that was not observed.
pub fn of_sides(baseline: &Side, subject: &Side) -> Value {
    json!({"baseline": baseline.refused, "subject": subject.refused})
}
