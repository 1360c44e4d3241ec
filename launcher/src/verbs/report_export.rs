//! `invarlock report export`: writes a report in a format of another tool.

use crate::args::ExportArgs;
use crate::error::Result;
use crate::report_files::ReportFiles;
use crate::ui;
use invarlock_evidence::export::Summary;

/// Exits 2 for an invalid evaluation report, and 1 when the output exists and `--force` was not passed.
pub fn run(args: &ExportArgs) -> Result<u8> {
    let files = ReportFiles::open(&args.report)?;
    let summary = Summary::new(&files.report, files.beside(), &files.sha256);
    files.write(&args.output, args.format.render(&summary).as_bytes(), args.force)?;
    if let Some(sentence) = &summary.host_execution {
        ui::on_stderr(&ui::host_execution_on_stderr(sentence));
    }
    Ok(0)
}
