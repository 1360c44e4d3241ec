//! `invarlock advanced evidence-pack …`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `invarlock advanced evidence-pack …`.
#[derive(Debug, Subcommand)]
pub enum EvidencePackCommand {
    /// Put verified evidence into one signed directory or archive
    #[command(after_help = "Examples:\n  \
        invarlock advanced evidence-pack build pack --report reports/eval --signing-key alice.key --profile ci\n  \
        invarlock advanced evidence-pack build pack --report a/ --report b/ --signing-key alice.key --archive pack.tar\n\n\
        Exit codes: 0 built, 2 usage, 4 an input is missing or malformed, 7 a report does not verify.")]
    Build(BuildPackArgs),
    /// Verify signature, checksums and reports of a pack
    #[command(after_help = "Examples:\n  \
        invarlock advanced evidence-pack verify --key alice.pub pack\n  \
        invarlock advanced evidence-pack verify --key alice.pub --profile ci pack.tar\n\n\
        Exit codes: 0 accepted, 2 usage, 3 a file is missing, 4 format, 5 signature, 6 a file was changed,\n\
        7 a report does not verify.")]
    Verify(VerifyPackArgs),
    /// Show what a pack contains, without verifying its reports
    #[command(after_help = "Example:\n  invarlock advanced evidence-pack inspect --json pack.tar\n\n\
        Exit codes: 0 shown, 2 usage, 3 a file is missing, 4 format, 6 a file was changed.")]
    Inspect(InspectPackArgs),
    /// Create an Ed25519 key pair that signs packs
    #[command(after_help = "Example:\n  invarlock advanced evidence-pack keygen alice.pem")]
    Keygen(PackKeygenArgs),
}

/// `invarlock advanced evidence-pack build`.
#[derive(Debug, Args)]
pub struct BuildPackArgs {
    /// Directory to create
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// Final verdict: a JSON object [default: one that lists the reports]
    #[arg(long, value_name = "FILE")]
    pub final_verdict: Option<PathBuf>,
    /// Evaluation report, or the directory that contains it; can be repeated
    #[arg(long = "report", required = true, value_name = "REPORT|DIR")]
    pub reports: Vec<PathBuf>,
    /// JSON file about the source repository
    #[arg(long, value_name = "FILE")]
    pub source_repo: Option<PathBuf>,
    /// JSON file about the environment
    #[arg(long, value_name = "FILE")]
    pub environment: Option<PathBuf>,
    /// Further JSON file; can be repeated
    #[arg(long = "material", value_name = "NAME=PATH", value_parser = parse_material)]
    pub materials: Vec<(String, PathBuf)>,
    /// Markdown page of the pack [default: a generated one]
    #[arg(long, value_name = "FILE")]
    pub readme: Option<PathBuf>,
    /// Ed25519 key that signs the pack (PKCS #8 PEM or OpenSSH; mode 600). An unsigned pack does not verify
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
    /// Also write the pack as this new tar file
    #[arg(long, value_name = "FILE")]
    pub archive: Option<PathBuf>,
    /// How the reports are verified
    #[command(flatten)]
    pub reports_as: ReportArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// How the reports of a pack are verified.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Profile that the reports are verified with: dev, ci_cpu, ci or release
    #[arg(long, default_value = "dev", value_name = "NAME")]
    pub profile: String,
    /// Accept reports of other makers; where their numbers come from is not checked
    #[arg(long)]
    pub accept_foreign: bool,
    /// Verify the reports as the Python package does, with its known gaps
    #[arg(long)]
    pub upstream_parity: bool,
}

/// `invarlock advanced evidence-pack verify`.
#[derive(Debug, Args)]
pub struct VerifyPackArgs {
    /// Directory or archive
    #[arg(value_name = "PACK")]
    pub pack: PathBuf,
    /// Public key that must have signed the pack; more than one: any of them
    #[arg(long = "key", value_name = "FILE")]
    pub keys: Vec<PathBuf>,
    /// Fingerprint of the key that must have signed the pack
    #[arg(long, value_name = "sha256:HEX")]
    pub expected_fingerprint: Option<String>,
    /// Check signature and checksums only
    #[arg(long)]
    pub skip_verify: bool,
    /// Accepted for the Python package; every verification is strict
    #[arg(long)]
    pub strict: bool,
    /// How the reports are verified
    #[command(flatten)]
    pub reports_as: ReportArgs,
    /// Write the verdicts of the reports to this file outside the pack
    #[arg(long, value_name = "FILE", conflicts_with = "skip_verify")]
    pub json_out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `invarlock advanced evidence-pack inspect`.
#[derive(Debug, Args)]
pub struct InspectPackArgs {
    /// Directory or archive
    #[arg(value_name = "PACK")]
    pub pack: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `invarlock advanced evidence-pack keygen`.
#[derive(Debug, Args)]
pub struct PackKeygenArgs {
    /// File to write the private key to (PKCS #8 PEM, mode 600)
    #[arg(value_name = "PRIVATE")]
    pub private: PathBuf,
    /// File to write the public key to [default: PRIVATE with the extension pub.pem]
    #[arg(long, value_name = "FILE")]
    pub public_key_out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn parse_material(text: &str) -> Result<(String, PathBuf), &'static str> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(path)))
        }
        _ => Err("use NAME=PATH"),
    }
}
