//! `invarlock advanced evidence-pack`: packs of evidence. The exit codes are those of the Python package.

mod build;
mod inspect;
mod keygen;
mod verify;

use crate::args::{EvidencePackCommand, ReportArgs};
use crate::error::{Error, Result};
use crate::output::ShownPath;
#[cfg(feature = "schemas")]
use crate::output::{NamedSchema, schema};
use crate::pack::ReportOptions;
use crate::ui;
use crate::verbs::row::Verb;
use console::style;
use invarlock_evidence::pack::Refusal;
use serde::Serialize;
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
struct Answer<'a, M> {
    json: bool,
    format_version: &'static str,
    pack: &'a Path,
    /// What only this command has in JSON.
    members: M,
    warnings: Vec<String>,
}

/// The output of `advanced evidence-pack build`, `inspect` and `verify` with `--json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct PackOutput<'a, M> {
    /// Name and version of the format.
    format_version: &'static str,
    /// The pack as the user named it.
    pack: ShownPath<'a>,
    /// Whether the command succeeded.
    ok: bool,
    /// What does not prevent success.
    warnings: &'a [String],
    /// Why the pack was refused.
    errors: &'a [String],
    /// Where it was refused: `newer`, `missing`, `format`, `signature`, `integrity` or `reports`; absent after success.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// What only this command has.
    #[serde(flatten)]
    members: &'a M,
}

/// A number of reports.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
struct Total {
    /// The number.
    total: usize,
}

impl<'a, M: Serialize> Answer<'a, M> {
    fn new(json: bool, format_version: &'static str, pack: &'a Path, members: M) -> Self {
        Self { json, format_version, pack, members, warnings: Vec::new() }
    }

    /// Prints the result; gives the exit code.
    fn print(self, done: &str, result: Result<Vec<String>, Refusal>) -> Result<u8> {
        let (code, errors, lines) = match &result {
            Ok(lines) => (0, &[][..], &lines[..]),
            Err(refusal) => (refusal.stage as u8, &refusal.errors[..], &[][..]),
        };
        if self.json {
            ui::json(&PackOutput {
                format_version: self.format_version,
                pack: ShownPath(self.pack),
                ok: result.is_ok(),
                warnings: &self.warnings,
                errors,
                reason: result.as_ref().err().map(|refusal| refusal.stage.as_str()),
                members: &self.members,
            })?;
            return Ok(code);
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
        Ok(code)
    }
}

/// The schema of each output.
#[cfg(feature = "schemas")]
pub fn schemas() -> [NamedSchema; 4] {
    fn pack<M: schemars::JsonSchema>(name: &'static str) -> NamedSchema {
        let (name, mut value) = schema::<PackOutput<'_, M>>(name);
        value["properties"]["format_version"]["const"] = name.into();
        (name, value)
    }
    [
        pack::<build::BuildMembers<'_>>("evidence-pack-build-v1"),
        pack::<inspect::InspectMembers>("evidence-pack-inspect-v1"),
        pack::<verify::VerifyMembers>("evidence-pack-verify-v1"),
        schema::<keygen::PackKeygenOutput<'_>>("evidence-pack-keygen-v1"),
    ]
}
