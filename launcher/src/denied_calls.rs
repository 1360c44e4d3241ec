//! Denied system calls of a workload: on standard error and in JSON.

use crate::ui::printable;
use invarlock_evidence::format::runtime_manifest::Side;
use serde::Serialize;
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

/// The denied calls of both sides, by name, with their number.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct DeniedOfSides {
    /// Of the baseline; null where they are not counted.
    baseline: Option<BTreeMap<String, u64>>,
    /// Of the subject; null where they are not counted.
    subject: Option<BTreeMap<String, u64>>,
}

/// The denied calls of both sides.
pub fn of_sides(baseline: &Side, subject: &Side) -> DeniedOfSides {
    DeniedOfSides { baseline: baseline.refused.clone(), subject: subject.refused.clone() }
}
