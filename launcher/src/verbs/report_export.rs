//! `invarlock report export`: writes a report in a format of another tool.

use crate::args::ExportArgs;
use crate::demands::consistency;
use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::{output_exists, write_output};
use crate::report_files::ReportFiles;
use crate::ui;
use invarlock_evidence::export::{Directory, Measurements, Output, Summary};
use invarlock_evidence::verify::{Reason, VerifyOptions, verify_report};
use std::path::Path;

/// Exits 2 for an invalid evaluation report, 3 for evidence that contradicts itself where the format needs all of it, and 1 when the
/// output exists and `--force` was not passed.
pub fn run(args: &ExportArgs) -> Result<u8> {
    let host_execution = match args.format.output {
        Output::File(render) => {
            let files = ReportFiles::open(&args.report)?;
            let summary =
                Summary::new(&files.report, files.beside(), &files.sha256).with_texts(files.texts());
            files.write(&args.output, render(&summary).as_bytes(), args.force)?;
            summary.host_execution
        }
        Output::Directory(files) => directory(args, files)?,
    };
    if let Some(sentence) = &host_execution {
        ui::on_stderr(&ui::host_execution_on_stderr(sentence));
    }
    Ok(0)
}

/// Writes the files of a directory, and prints how to use them; gives the sentence about host execution.
fn directory(args: &ExportArgs, files: fn(&Measurements<'_>) -> Result<Directory>) -> Result<Option<String>> {
    let (name, report) = (args.format.name, args.report.display());
    if args.output == Path::new("-") {
        return Err(Error::input(format!("--format {name} writes several files"))).hint("pass --output DIR");
    }
    let verdict = verify_report(&args.report, &VerifyOptions { accept_foreign: true, ..consistency() });
    let exporting = || format!("exporting {report} as {name}");
    match verdict.errors.first() {
        Some(why) if verdict.reason == Reason::Malformed => {
            return Err(Error::input(why.clone())).with_context(exporting);
        }
        Some(why) => return Err(Error::integrity(why.clone())).with_context(exporting),
        None => {}
    }
    let verified =
        verdict.verified.ok_or_else(|| Error::input("evidence of other makers has no run reports"));
    let verified = verified.with_context(exporting)?;
    let (facts, baseline, subject) = (&verified.facts, &verified.baseline, &verified.subject);
    let made = files(&Measurements { facts, baseline, subject }).with_context(exporting)?;
    write(&made, &args.output, args.force)?;
    Ok(verdict.host_execution)
}

fn write(made: &Directory, directory: &Path, force: bool) -> Result<()> {
    // Not one file of a new export beside those of another one.
    let mut paths = made.files.iter().map(|(name, _)| directory.join(name));
    if let Some(path) = paths.find(|path| !force && path.symlink_metadata().is_ok()) {
        return Err(output_exists(&path));
    }
    for (name, bytes) in &made.files {
        write_output(&directory.join(name), bytes, force)?;
    }
    made.files.iter().for_each(|(name, _)| ui::out(&shown(&directory.join(name))));
    made.lines.iter().for_each(|line| ui::out(line));
    let (before, after) = made.command;
    ui::out(&format!("{before} {} {after}", quoted(&shown(&directory.join(made.main)))));
    Ok(())
}

fn shown(path: &Path) -> String {
    ui::printable(&path.to_string_lossy())
}

/// A word of a command line of a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
