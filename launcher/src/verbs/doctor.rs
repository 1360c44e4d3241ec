//! `invarlock doctor`: which controls this machine supports, and what fixes a missing one.

use crate::args::DoctorArgs;
use crate::error::Result;
use crate::output::Resolution;
use crate::{image, ui};
use console::style;
use invarlock_runtime::doctor::{ControlCheck as Row, check as probe};
use invarlock_runtime::place::Place;
use serde::Serialize;

/// The output of `doctor --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct DoctorOutput<'a> {
    /// Always `doctor-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "doctor-v1")))]
    format_version: &'static str,
    /// Where this program runs: a machine, or a container of some kind.
    place: &'static str,
    /// Every control.
    boundary: &'a [Row],
    /// The controls that this machine does not support.
    findings: Vec<Finding<'a>>,
    /// Numbers of findings.
    summary: FindingCounts,
    /// The exit code.
    resolution: Resolution,
}

/// A control that this machine does not support.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Finding<'a> {
    /// Name of the control.
    code: &'a str,
    /// `error` if runs need it, otherwise `warning`.
    severity: &'static str,
    /// What was tried, and the result.
    message: &'a str,
    /// What the administrator can do.
    remedy: Option<&'a str>,
}

/// Numbers of findings.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct FindingCounts {
    /// Controls that runs need.
    errors: usize,
    /// Other controls.
    warnings: usize,
    /// Always 0.
    notes: usize,
}

/// Exits 0 when every required control is supported, otherwise 1.
pub fn run(args: &DoctorArgs) -> Result<u8> {
    let mut controls = probe();
    controls.push(evaluator());
    let place = Place::find();
    let missing = controls.iter().filter(|control| control.required && !control.available).count();
    if args.json {
        let findings: Vec<_> = controls.iter().filter(|control| !control.available).map(finding).collect();
        ui::json(&DoctorOutput {
            format_version: "doctor-v1",
            place: place.name(),
            boundary: &controls,
            summary: FindingCounts { errors: missing, warnings: findings.len() - missing, notes: 0 },
            findings,
            resolution: Resolution { exit_code: u8::from(missing > 0) },
        })?;
    } else {
        controls.iter().for_each(print);
        ui::out(&format!("\n{}", conclusion(place, missing)));
    }
    Ok(u8::from(missing > 0))
}

/// Whether runs can be isolated here, and what to change if not.
fn conclusion(place: Place, missing: usize) -> String {
    let here = match place {
        Place::Machine => "This machine".to_owned(),
        place => format!("This environment ({})", place.name()),
    };
    let advice = place.advice().map(|advice| format!("\nhelp: {advice}")).unwrap_or_default();
    match missing {
        0 => format!("{here} can isolate runs."),
        1 => format!("{here} cannot isolate runs: 1 required control is missing.{advice}"),
        count => format!("{here} cannot isolate runs: {count} required controls are missing.{advice}"),
    }
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

fn finding(control: &Row) -> Finding<'_> {
    Finding {
        code: &control.control,
        severity: if control.required { "error" } else { "warning" },
        message: &control.detail,
        remedy: control.remedy.as_deref(),
    }
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
