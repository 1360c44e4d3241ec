//! `invarlock runtime probe`: attacks a container on this machine and prints, per control, whether each attack was blocked.

use crate::args::ProbeArgs;
use crate::error::Result;
use crate::output::Resolution;
use crate::signals::Signals;
use crate::ui;
use crate::workload::or_interrupted;
use console::style;
use invarlock_probe::{AttackResult, Verdict, probe};
use serde::Serialize;

/// The output of `runtime probe --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ProbeOutput<'a> {
    /// Always `runtime-probe-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-probe-v1")))]
    format_version: &'static str,
    /// The attacks and their results.
    attacks: &'a [AttackResult],
    /// Numbers of attacks.
    summary: AttackCounts,
    /// The exit code.
    resolution: Resolution,
}

/// Numbers of attacks.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct AttackCounts {
    /// All of them.
    attacks: usize,
    /// Attacks that were blocked.
    held: usize,
    /// Attacks that succeeded.
    not_held: usize,
    /// Attacks that were not made.
    not_tried: usize,
}

/// Exits 0 when every attack was blocked, otherwise 1.
pub fn run(args: &ProbeArgs) -> Result<u8> {
    let signals = Signals::catch()?;
    let results = probe(signals.fd()).map_err(|error| or_interrupted(error, &signals))?;
    let count = |verdict| results.iter().filter(|result| result.verdict == verdict).count();
    let (held, not_held, not_tried) =
        (count(Verdict::Held), count(Verdict::NotHeld), count(Verdict::NotTried));
    let code = u8::from(not_held + not_tried > 0);
    if args.json {
        ui::json(&ProbeOutput {
            format_version: "runtime-probe-v1",
            attacks: &results,
            summary: AttackCounts { attacks: results.len(), held, not_held, not_tried },
            resolution: Resolution { exit_code: code },
        })?;
        return Ok(code);
    }
    let mut last = "";
    for result in &results {
        if last != result.control {
            ui::out(&format!("{}{}", if last.is_empty() { "" } else { "\n" }, style(&result.control).bold()));
            last = &result.control;
        }
        print(result);
    }
    ui::out(&format!("\n{} attacks: {held} held, {not_held} NOT HELD, {not_tried} not tried", results.len()));
    Ok(code)
}

fn print(result: &AttackResult) {
    let verdict = match result.verdict {
        Verdict::Held => style("held     ").green(),
        Verdict::NotHeld => style("NOT HELD ").red().bold(),
        Verdict::NotTried => style("not tried").yellow(),
    };
    let line = format!("{:<58} {:<37} {}", result.attack, result.expected, result.observed);
    ui::out(&format!("  {verdict}  {}", ui::printable(&line)));
}
