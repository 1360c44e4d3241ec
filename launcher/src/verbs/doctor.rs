//! `invarlock doctor`: which controls this machine supports, and what fixes a missing one.

use crate::args::DoctorArgs;
use crate::error::Result;
use crate::{image, ui};
use console::style;
use invarlock_runtime::doctor::{ControlCheck as Row, check as probe};
use serde_json::json;

/// Exits 0 when every required control is supported, otherwise 1.
pub fn run(args: &DoctorArgs) -> Result<u8> {
    let mut controls = probe();
    controls.push(evaluator());
    let missing = controls.iter().filter(|control| control.required && !control.available).count();
    if args.json {
        let findings: Vec<_> = controls.iter().filter(|control| !control.available).map(finding).collect();
        ui::json(&json!({
            "format_version": "doctor-v1",
            "boundary": controls,
            "findings": findings,
            "summary": {"errors": missing, "warnings": findings.len() - missing, "notes": 0},
            "resolution": {"exit_code": u8::from(missing > 0)},
        }));
    } else {
        controls.iter().for_each(print);
        ui::out(&match missing {
            0 => "\nThis machine can isolate runs.".to_owned(),
            1 => "\nThis machine cannot isolate runs: 1 required control is missing.".to_owned(),
            count => format!("\nThis machine cannot isolate runs: {count} required controls are missing."),
        });
    }
    Ok(u8::from(missing > 0))
}

fn evaluator() -> Row {
    let found = image::evaluator(None);
    Row {
        control: "evaluator".into(),
        available: found.is_ok(),
        required: false,
        detail: match &found {
            Ok(path) => path.display().to_string(),
            Err(error) => error.to_string(),
        },
        remedy: found.err().map(|_| "run `make build`, or install both programs in one directory".into()),
    }
}

fn finding(control: &Row) -> serde_json::Value {
    let severity = if control.required { "error" } else { "warning" };
    json!({"code": control.control, "severity": severity, "message": control.detail, "remedy": control.remedy})
}

fn print(control: &Row) {
    let state = match (control.available, control.required) {
        (true, _) => style("ok     ").green(),
        (false, true) => style("MISSING").red().bold(),
        (false, false) => style("absent ").yellow(),
    };
    ui::out(&format!("{state}  {:<22} {}", control.control, ui::printable(&control.detail)));
    if let (false, Some(hint)) = (control.available, &control.remedy) {
        ui::out(&format!("         {:<22} help: {hint}", ""));
    }
}
