//! `invarlock report …`.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use invarlock_evidence::export::{FORMATS, Format};
use std::path::{Path, PathBuf};

/// `invarlock report …`.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// Render a report as one self-contained HTML page
    #[command(after_help = "Examples:\n  \
        invarlock report html reports/eval -o report.html\n  \
        invarlock report html reports/eval -o - > report.html")]
    Html(HtmlArgs),
    /// Explain why a report passed or failed, by which margin, and what to do next
    #[command(after_help = "Example:\n  invarlock report explain reports/eval")]
    Explain(ExplainArgs),
    /// Check a report on its own: its schema, and that its values follow from each other
    #[command(after_help = "Example:\n  \
        invarlock report validate reports/eval/evaluation.report.json\n\n\
        Exit codes: 0 valid, 2 not. To check all of the evidence, use `invarlock verify`.")]
    Validate(ValidateArgs),
    /// Render or copy the evaluation of a run report, like the Python package's command
    #[command(after_help = "Examples:\n  \
        invarlock report generate --run reports/eval/subject.report.json --format all -o rendered\n  \
        invarlock report generate --run reports/eval --format report -o copy\n\n\
        The evaluation report and its manifest must lie beside the run report. For other formats, use\n\
        `invarlock report export`.")]
    Generate(GenerateArgs),
    /// Write a report in a format of another tool
    #[command(after_help = "Examples:\n  \
        invarlock report export reports/eval --format junit -o gates.xml\n  \
        invarlock report export reports/eval --format github-summary >> \"$GITHUB_STEP_SUMMARY\"\n  \
        invarlock report export reports/eval --format invarlock-captured -o captured")]
    Export(ExportArgs),
}

/// `invarlock report html`.
#[derive(Debug, Args)]
pub struct HtmlArgs {
    /// Evaluation report, or a directory that contains evaluation.report.json
    #[arg(value_name = "REPORT|DIR", required_unless_present = "input", conflicts_with = "input")]
    report: Option<PathBuf>,
    /// The same as REPORT|DIR, as the Python package spells it
    #[arg(short, long, value_name = "REPORT|DIR")]
    input: Option<PathBuf>,
    /// File to write, or - for standard output
    #[arg(short, long, value_name = "FILE|-")]
    pub output: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
}

impl HtmlArgs {
    /// The report. The command line has exactly one of the two.
    pub fn report(&self) -> &Path {
        self.report.as_deref().or(self.input.as_deref()).unwrap_or_else(|| Path::new(""))
    }
}

/// `invarlock report explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Evaluation report, or a directory that contains evaluation.report.json
    #[arg(
        value_name = "REPORT|DIR",
        required_unless_present = "evaluation_report",
        conflicts_with = "evaluation_report"
    )]
    report: Option<PathBuf>,
    /// The same as REPORT|DIR, as the Python package spells it
    #[arg(long, value_name = "REPORT|DIR")]
    evaluation_report: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl ExplainArgs {
    /// The report. The command line has exactly one of the two.
    pub fn report(&self) -> &Path {
        self.report.as_deref().or(self.evaluation_report.as_deref()).unwrap_or_else(|| Path::new(""))
    }
}

/// `invarlock report validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Evaluation report, or a directory that contains evaluation.report.json
    #[arg(value_name = "REPORT|DIR")]
    pub report: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `invarlock report generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Run report of the subject, or the directory of the evidence
    #[arg(long, value_name = "REPORT|DIR")]
    pub run: PathBuf,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub format: GenerateFormat,
    /// Run report that must be that of the baseline
    #[arg(long, value_name = "REPORT")]
    pub baseline_run_report: Option<PathBuf>,
    /// The same as --baseline-run-report: md and html always compare with the baseline
    #[arg(long, value_name = "REPORT")]
    pub compare_run_report: Option<PathBuf>,
    /// Directory to write to [default: reports_NAME, where NAME is that of --run without its extension]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Replace existing files
    #[arg(long)]
    pub force: bool,
}

/// What `invarlock report generate` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GenerateFormat {
    /// evaluation.json: the run report of the subject
    Json,
    /// evaluation.md: the evaluation report for readers
    #[value(alias = "markdown")]
    Md,
    /// evaluation.html: the evaluation report as one page
    Html,
    /// evaluation.report.json and all other files of the evidence
    Report,
    /// json, md and html
    All,
}

/// `invarlock report export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Evaluation report, or a directory that contains evaluation.report.json
    #[arg(value_name = "REPORT|DIR")]
    pub report: PathBuf,
    /// Format to write
    #[arg(short, long, value_name = "FORMAT", value_parser = formats())]
    pub format: &'static Format,
    /// File to write, or - for standard output; a directory for invarlock-captured
    #[arg(short, long, value_name = "FILE|DIR|-", default_value = "-")]
    pub output: PathBuf,
    /// Replace existing files
    #[arg(long)]
    pub force: bool,
}

/// The names of the table of formats.
fn formats() -> impl TypedValueParser<Value = &'static Format> {
    let names = FORMATS.iter().map(|format| PossibleValue::new(format.name).help(format.purpose));
    PossibleValuesParser::new(names).try_map(|name| Format::of(&name).ok_or("unknown format"))
}
