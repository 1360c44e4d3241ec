//! `invarlock verify` and `invarlock advanced …`.

use clap::{Args, Subcommand, ValueEnum};
use invarlock_images::Digest;
use std::path::PathBuf;

/// `invarlock verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    invarlock verify reports/eval\n  \
    invarlock verify --tier conservative --json a/evaluation.report.json b/evaluation.report.json\n  \
    invarlock verify --expected-runtime-image-digest sha256:… reports/eval\n\n\
    Exit codes: 0 accepted, 1 a policy or a gate failed or the manifest is missing, 2 usage, malformed\n\
    or unusable input, 3 integrity: the evidence contradicts itself (ci and release).")]
pub struct VerifyArgs {
    /// Evaluation reports, or directories that contain evaluation.report.json
    #[arg(required = true, value_name = "REPORT|DIR")]
    pub reports: Vec<PathBuf>,
    /// Profile: dev (ratio and invariants), ci (every gate) or release (every gate and guard; this version cannot measure for it)
    #[arg(long, default_value = "ci", value_name = "NAME")]
    pub profile: String,
    /// Required tier of the gates [default: the report's own, which is printed]
    #[arg(long, value_name = "NAME")]
    pub tier: Option<String>,
    /// Baseline report: its digests must match those in the evaluation report
    #[arg(long, value_name = "REPORT")]
    pub baseline: Option<PathBuf>,
    /// Largest accepted difference between a recorded and a recomputed value
    #[arg(long, default_value_t = 1e-9, value_name = "NUMBER", value_parser = parse_number)]
    pub tolerance: f64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Accepted execution mode of the evaluator. With `host` the runtime manifest is not checked at all, not even that it belongs to the
    /// report
    #[arg(long, value_enum, default_value = "container", value_name = "MODE")]
    pub runtime_provenance: Provenance,
    /// Required digest of the runtime image; a manifest with a different digest is rejected
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_digest)]
    pub expected_runtime_image_digest: Option<Digest>,
    /// Accept evidence of other makers; where its numbers come from is not checked
    #[arg(long)]
    pub accept_foreign: bool,
    /// Give the verdict of the Python package, with its known gaps (no strict checks)
    #[arg(long)]
    pub upstream_parity: bool,
}

fn parse_number(text: &str) -> Result<f64, &'static str> {
    text.trim().parse().map_err(|_| "use a number, such as 0.000001 or 1e-9")
}

/// Execution modes that a verifier accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Provenance {
    /// Only execution in a container
    Container,
    /// Also execution on the host; the runtime manifest is not checked
    Host,
}

/// `invarlock advanced …`.
#[derive(Debug, Subcommand)]
pub enum AdvancedCommand {
    /// Check that a runtime manifest belongs to a report
    #[command(after_help = "Example:\n  \
        invarlock advanced runtime-verify --report eval/evaluation.report.json --manifest eval/runtime.manifest.json")]
    RuntimeVerify(RuntimeVerifyArgs),
}

/// `invarlock advanced runtime-verify`.
#[derive(Debug, Args)]
pub struct RuntimeVerifyArgs {
    /// Evaluation report
    #[arg(long, value_name = "REPORT")]
    pub report: PathBuf,
    /// Runtime manifest
    #[arg(long, value_name = "MANIFEST")]
    pub manifest: PathBuf,
    /// Required digest of the runtime image
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_digest)]
    pub expected_runtime_image_digest: Option<Digest>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A digest in any case, as the Python package accepts it.
fn parse_digest(text: &str) -> invarlock_images::Result<Digest> {
    Digest::parse(&text.trim().to_lowercase())
}
