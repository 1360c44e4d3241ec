//! What a workload tried and was refused, for people and for JSON.

use crate::side::Side;
use crate::ui::printable;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;

/// Says on standard error, one line each, which calls a filter refused; `of` names the side of an evaluation.
pub fn show(refused: Option<&BTreeMap<String, u64>>, of: Option<&str>) {
    let of = of.map(|side| format!(" ({side})")).unwrap_or_default();
    for (call, count) in refused.into_iter().flatten() {
        // Nobody left to tell when the terminal is gone.
        drop(writeln!(std::io::stderr(), "invarlock: refused {} ×{count}{of}", printable(call)));
    }
}

/// The denied calls of both sides; null where the filter does not report them.
pub fn of_sides(baseline: &Side, subject: &Side) -> Value {
    json!({"baseline": baseline.refused, "subject": subject.refused})
}
