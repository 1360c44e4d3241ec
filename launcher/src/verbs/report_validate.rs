//! `invarlock report validate`: checks a report on its own.

use crate::args::ValidateArgs;
use crate::error::{Context as _, Error, Result};
use crate::output::Resolution;
use crate::ui;
use invarlock_evidence::verify;
use serde::Serialize;

/// Contradictions that the error names; the others are counted.
const NAMED: usize = 5;

/// The output of `report validate --json` for a valid report.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ValidateOutput<'a> {
    /// Always `report-validate-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "report-validate-v1")))]
    format_version: &'static str,
    /// Always true: a failure is an error.
    ok: bool,
    /// Path of the report.
    report: &'a str,
    /// The exit code.
    resolution: Resolution,
}

/// Exits 0 for a report that is valid by its schema and does not contradict itself, else 2.
pub fn run(args: &ValidateArgs) -> Result<u8> {
    let opened = verify::open_report(&args.report)?;
    let found = verify::contradictions(&opened.report);
    let path = opened.path.to_string_lossy();
    if found.is_empty() {
        let output = ValidateOutput {
            format_version: "report-validate-v1",
            ok: true,
            report: &path,
            resolution: Resolution { exit_code: 0 },
        };
        ui::result(args.json, &output, &format!("VALID {}", ui::printable(&path)))?;
        return Ok(0);
    }
    let more = found.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let named = found[..found.len().min(NAMED)].join("; ");
    Err(Error::input(format!("validating {path}: the report contradicts itself: {named}{more}")))
        .hint("use the report as it was written, or evaluate again")
}
