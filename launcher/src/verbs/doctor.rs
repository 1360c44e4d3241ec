//! `invarlock doctor`: what this machine can and cannot give the boundary, row by row, with the remedy.

use crate::args::DoctorArgs;
use crate::error::Result;
use crate::{image, ui};
use console::style;
use invarlock_runtime::doctor::{ControlCheck as Row, check as probe};
use serde_json::json;

/// Exits 0 when every row the default boundary needs is available, else 1.
pub fn run(args: &DoctorArgs) -> Result<u8> {
    let mut rows = probe();
    rows.push(evaluator_row());
    let missing = rows.iter().filter(|r| r.required && !r.available).count();
    if args.json {
        let findings: Vec<_> = rows.iter().filter(|r| !r.available).map(finding).collect();
        let value = json!({
            "format_version": "doctor-v1",
            "boundary": rows,
            "findings": findings,
            "summary": {"errors": missing, "warnings": findings.len() - missing, "notes": 0},
            "resolution": {"exit_code": u8::from(missing > 0)},
        });
        ui::json(&value);
    } else {
        rows.iter().for_each(print);
        match missing {
            0 => ui::out("\nThis machine can hold the boundary."),
            n => {
                ui::out(&format!("\nThis machine cannot hold the boundary: {n} required control(s) missing."))
            }
        }
    }
    Ok(u8::from(missing > 0))
}

fn evaluator_row() -> Row {
    let found = image::evaluator(None);
    Row {
        control: "evaluator".into(),
        available: found.is_ok(),
        required: false,
        detail: match &found {
            Ok(path) => path.display().to_string(),
            Err(e) => e.to_string(),
        },
        remedy: found.err().map(|_| "run `make build`, or install both programs in one directory".into()),
    }
}

fn finding(row: &Row) -> serde_json::Value {
    let severity = if row.required { "error" } else { "warning" };
    json!({"code": row.control, "severity": severity, "message": row.detail, "remedy": row.remedy})
}

fn print(row: &Row) {
    let mark = match (row.available, row.required) {
        (true, _) => style("ok     ").green(),
        (false, true) => style("MISSING").red().bold(),
        (false, false) => style("absent ").yellow(),
    };
    ui::out(&format!("{mark}  {:<22} {}", row.control, ui::printable(&row.detail)));
    if let (false, Some(remedy)) = (row.available, &row.remedy) {
        ui::out(&format!("         {:<22} remedy: {remedy}", ""));
    }
}
