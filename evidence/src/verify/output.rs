//! Verdicts as one line and as an exit code.

use super::summary::Summary;
use super::{Reason, Verdict};
use crate::format::to_value;
use crate::numerics::digest::python_json;
use serde::Serialize;

/// The verdict of several reports together: that of the first that stopped the checks, otherwise the worst.
pub(super) fn overall(verdicts: &[Verdict]) -> Reason {
    if let Some(stopped) = verdicts.iter().find(|verdict| verdict.stopped_by.is_some()) {
        return stopped.reason;
    }
    let worst = |reason: Reason| verdicts.iter().any(|verdict| verdict.reason == reason);
    if verdicts.is_empty() {
        return Reason::Malformed;
    }
    let failed = [Reason::Malformed, Reason::Integrity, Reason::PolicyFail];
    failed.into_iter().find(|reason| worst(*reason)).unwrap_or(Reason::Ok)
}

/// The exit code of several verdicts: that of the first that stopped the checks, otherwise the largest.
pub fn exit_code(verdicts: &[Verdict]) -> i32 {
    verdicts
        .iter()
        .find(|verdict| verdict.stopped_by.is_some())
        .map(Verdict::exit_code)
        .or_else(|| verdicts.iter().map(Verdict::exit_code).max())
        .unwrap_or(2)
}

/// Upstream's output line for a report that verifies, the assurance, and the trusted keys that signed it.
pub fn success_line(verdict: &Verdict) -> String {
    let nothing = Summary::default();
    let summary = verdict.summary.as_ref().unwrap_or(&nothing);
    let mut line = format!("VERIFY OK metric={}", summary.kind.as_deref().unwrap_or("?"));
    if let Some((preview, last)) = summary.windows {
        line += &format!(" n={preview}/{last}");
    }
    if let Some(ratio) = summary.ratio {
        line += &format!(" point={ratio:.6}");
    }
    if let Some((low, high)) = summary.interval {
        line += &format!(" ci=[{low:.6},{high:.6}] width={:.6}", high - low);
    }
    if let Some(tier) = &summary.tier {
        line += &format!(" tier={tier}");
    }
    line += &format!(" assurance={}", verdict.assurance.as_str());
    let signers: Vec<&str> = verdict.trusted_signers().collect();
    if !signers.is_empty() {
        line += &format!(" signers={}", signers.join(","));
    }
    line
}

/// One line of JSON with sorted keys.
pub fn to_line(value: &impl Serialize) -> String {
    python_json(&to_value(value), ", ", ": ")
}
