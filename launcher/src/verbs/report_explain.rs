//! `invarlock report explain`: why a report passed or failed, the margin of each gate, and what to do next.

use crate::args::ExplainArgs;
use crate::error::Result;
use crate::report_files::ReportFiles;
use crate::ui;
use console::style;
use invarlock_evidence::explain::Explanation;
use serde::Serialize;

/// The output of `report explain --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ExplainOutput<'a> {
    /// The explanation.
    #[serde(flatten)]
    explanation: &'a Explanation,
    /// Always `report-explain-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "report-explain-v1")))]
    format_version: &'static str,
}

/// Exits 0 whatever the verdict, and 2 for an invalid evaluation report.
pub fn run(args: &ExplainArgs) -> Result<u8> {
    let files = ReportFiles::open(args.report())?;
    let explanation = Explanation::new(&files.report, files.beside(), &files.sha256);
    if args.json {
        ui::json(&ExplainOutput { explanation: &explanation, format_version: "report-explain-v1" })?;
    } else {
        print(&explanation);
    }
    Ok(0)
}

fn print(explanation: &Explanation) {
    let summary = &explanation.summary;
    let verdict = match summary.verdict {
        "PASS" => style(summary.verdict).green().bold(),
        _ => style(summary.verdict).red().bold(),
    };
    ui::out(&format!("{verdict} {}", ui::printable(&summary.gates_counted)));
    if let Some(sentence) = &summary.host_execution {
        ui::out(&ui::host_execution(sentence));
    }
    let section = |title: &str, lines: &mut dyn Iterator<Item = String>| {
        let lines: Vec<String> = lines.collect();
        if !lines.is_empty() {
            ui::out(title);
        }
        lines.iter().for_each(|line| ui::out(&format!("  {}", ui::printable(line))));
    };
    section("why", &mut explanation.reasons.iter().cloned());
    section("gates", &mut explanation.gate_lines());
    section("warnings", &mut summary.warnings.iter().cloned());
    section("manifest", &mut summary.manifest_fault.map(str::to_owned).into_iter());
    section("next", &mut explanation.next.iter().cloned());
    ui::out("nothing was verified here: run invarlock verify");
}
