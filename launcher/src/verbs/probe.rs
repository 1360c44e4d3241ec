//! `invarlock runtime probe`: attacks the boundary of this machine and shows, row by row, whether it held.

use crate::error::Result;
use crate::signals::Signals;
use crate::ui;
use console::style;
use invarlock_probe::{Row, Verdict, probe};
use serde_json::json;

/// Exits 0 when every attack was held, else 1.
pub fn run(json: bool) -> Result<u8> {
    let signals = Signals::catch()?;
    let rows = probe(signals.fd());
    let rows = rows.map_err(|error| signals.check("nothing is kept").err().unwrap_or(error))?;
    let count = |verdict| rows.iter().filter(|r| r.verdict == verdict).count();
    let (held, not_held, not_tried) =
        (count(Verdict::Held), count(Verdict::NotHeld), count(Verdict::NotTried));
    let code = u8::from(not_held + not_tried > 0);
    if json {
        let summary =
            json!({"attacks": rows.len(), "held": held, "not_held": not_held, "not_tried": not_tried});
        let value = json!({
            "format_version": "runtime-probe-v1",
            "attacks": rows,
            "summary": summary,
            "resolution": {"exit_code": code},
        });
        ui::out(&value.to_string());
        return Ok(code);
    }
    let mut last = "";
    for row in &rows {
        if last != row.row {
            ui::out(&format!("{}{}", if last.is_empty() { "" } else { "\n" }, style(&row.row).bold()));
            last = &row.row;
        }
        print(row);
    }
    ui::out(&format!("\n{} attacks: {held} held, {not_held} NOT HELD, {not_tried} not tried", rows.len()));
    Ok(code)
}

fn print(row: &Row) {
    let verdict = match row.verdict {
        Verdict::Held => style("held     ").green(),
        Verdict::NotHeld => style("NOT HELD ").red().bold(),
        Verdict::NotTried => style("not tried").yellow(),
    };
    let line = format!("{:<58} {:<30} {}", row.attack, row.expected, row.seen);
    ui::out(&format!("  {verdict}  {}", ui::printable(&line)));
}
