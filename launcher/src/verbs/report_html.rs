//! `invarlock report html`: renders a report and its manifest as one self-contained page.

use crate::args::HtmlArgs;
use crate::error::Result;
use crate::report_files::ReportFiles;
use crate::ui;
use invarlock_evidence::html;

/// Exits 2 for an invalid evaluation report, and 1 when the output exists and `--force` was not passed.
pub fn run(args: &HtmlArgs) -> Result<u8> {
    let files = ReportFiles::open(args.report())?;
    let page = html::render_with(&files.report, files.beside(), &files.texts())?;
    files.write(&args.output, page.as_bytes(), args.force)?;
    if let Some(sentence) = files.host_execution() {
        ui::on_stderr(&ui::host_execution_on_stderr(&sentence));
    }
    Ok(0)
}
