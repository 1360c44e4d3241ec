//! `invarlock report validate`: checks a report on its own.

use crate::args::ValidateArgs;
use crate::error::{Context as _, Error, Result};
use crate::ui;
use invarlock_evidence::verify;
use serde_json::json;

/// Contradictions that the error names; the others are counted.
const NAMED: usize = 5;

/// Exits 0 for a report that is valid by its schema and does not contradict itself, else 2.
pub fn run(args: &ValidateArgs) -> Result<u8> {
    let opened = verify::open_report(&args.report)?;
    let found = verify::contradictions(&opened.report);
    let path = opened.path.to_string_lossy();
    if found.is_empty() {
        let value = json!({
            "format_version": "report-validate-v1", "ok": true, "report": path, "resolution": {"exit_code": 0},
        });
        ui::result(args.json, &value, &format!("VALID {}", ui::printable(&path)));
        return Ok(0);
    }
    let more = found.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let named = found[..found.len().min(NAMED)].join("; ");
    Err(Error::input(format!("validating {path}: the report contradicts itself: {named}{more}")))
        .hint("use the report as it was written, or evaluate again")
}
