//! `invarlock advanced evidence-pack`: packs of evidence. The exit codes are those of the Python package.

mod build;
mod inspect;
mod keygen;
mod verify;

use crate::args::{EvidencePackCommand, ReportArgs};
use crate::error::{Error, Result};
use crate::pack::ReportOptions;
use crate::ui;
use crate::verbs::row::Verb;
use console::style;
use invarlock_evidence::pack::Refusal;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The row of a command.
pub fn of(command: &EvidencePackCommand) -> Verb<'_> {
    match command {
        EvidencePackCommand::Build(args) => Verb::new(|_| build::run(args)).json(args.json),
        EvidencePackCommand::Verify(args) => Verb::new(|_| verify::run(args)).json(args.json),
        EvidencePackCommand::Inspect(args) => Verb::new(|_| inspect::run(args)).json(args.json),
        EvidencePackCommand::Keygen(args) => Verb::new(|_| keygen::run(args)).json(args.json),
    }
}

/// How the reports of a pack are verified.
fn report_options(args: &ReportArgs) -> Result<ReportOptions> {
    Ok(ReportOptions {
        profile: args.profile.parse().map_err(|why| Error::input(format!("--profile: {why}")))?,
        accept_foreign: args.accept_foreign,
        upstream_parity: args.upstream_parity,
        ..ReportOptions::default()
    })
}

/// The result of a command, as JSON or as text.
struct Answer<'a> {
    json: bool,
    format_version: &'static str,
    pack: &'a Path,
    /// Members of the JSON object besides those of every answer.
    members: Map<String, Value>,
    warnings: Vec<String>,
}

impl<'a> Answer<'a> {
    fn new(json: bool, format_version: &'static str, pack: &'a Path) -> Self {
        Self { json, format_version, pack, members: Map::new(), warnings: Vec::new() }
    }

    fn set(&mut self, member: &str, value: impl Into<Value>) {
        self.members.insert(member.to_owned(), value.into());
    }

    /// Prints the result; gives the exit code.
    fn print(self, done: &str, result: Result<Vec<String>, Refusal>) -> u8 {
        let (code, errors, lines) = match &result {
            Ok(lines) => (0, &[][..], &lines[..]),
            Err(refusal) => (refusal.stage as u8, &refusal.errors[..], &[][..]),
        };
        if self.json {
            let mut answer = json!({
                "format_version": self.format_version, "pack": self.pack, "ok": result.is_ok(),
                "warnings": self.warnings, "errors": errors,
            });
            if let (Value::Object(answer), Err(refusal)) = (&mut answer, &result) {
                answer.insert("reason".to_owned(), refusal.stage.as_str().into());
            }
            if let Value::Object(answer) = &mut answer {
                answer.extend(self.members);
            }
            ui::json(&answer);
            return code;
        }
        let pack = ui::printable(&self.pack.to_string_lossy());
        match &result {
            Ok(_) => ui::out(&format!("{} {pack}", style(done).green().bold())),
            Err(refusal) => {
                ui::out(&format!("{} {pack} ({})", style("PACK FAIL").red().bold(), refusal.stage.as_str()));
            }
        }
        errors.iter().for_each(|error| ui::out(&format!("  - {}", ui::printable(error))));
        lines.iter().for_each(|line| ui::out(&format!("  {}", ui::printable(line))));
        self.warnings.iter().for_each(|line| ui::out(&format!("  warning: {}", ui::printable(line))));
        code
    }
}
