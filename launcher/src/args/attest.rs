//! `invarlock advanced attest …` and `invarlock plan lock`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `invarlock advanced attest …`.
#[derive(Debug, Subcommand)]
pub enum AttestCommand {
    /// Create an Ed25519 key pair for signatures
    #[command(after_help = "Example:\n  invarlock advanced attest keygen alice.key")]
    Keygen(KeygenArgs),
    /// Verify the evidence of an evaluation and sign it
    #[command(after_help = "Example:\n  invarlock advanced attest sign --signing-key alice.key reports/eval")]
    Sign(SignArgs),
    /// Check the signatures of an attestation, a plan lock or a receipt
    #[command(after_help = "Example:\n  \
        invarlock advanced attest verify --key alice.pub reports/eval/runtime.attestation.json\n\n\
        Checks the signature only. `invarlock verify --key` also checks the evidence.")]
    Verify(VerifyEnvelopeArgs),
    /// Print what an attestation, a plan lock or a receipt says, without checking it
    #[command(
        after_help = "Example:\n  invarlock advanced attest inspect reports/eval/runtime.attestation.json"
    )]
    Inspect(InspectArgs),
}

/// `invarlock advanced attest keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// File to write the private key to (PKCS #8 PEM, mode 600)
    #[arg(value_name = "PRIVATE")]
    pub private: PathBuf,
    /// File to write the public key to [default: PRIVATE with the extension pub]
    #[arg(long, value_name = "FILE")]
    pub public_key_out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `invarlock advanced attest sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// Evaluation report, or a directory that contains evaluation.report.json
    #[arg(value_name = "REPORT|DIR")]
    pub report: PathBuf,
    /// Ed25519 key (PKCS #8 PEM or OpenSSH; mode 600)
    #[arg(long, value_name = "FILE")]
    pub signing_key: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `invarlock advanced attest verify`.
#[derive(Debug, Args)]
pub struct VerifyEnvelopeArgs {
    /// The signed file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Public key that must have signed the file; more than one: all of them
    #[arg(long = "key", required = true, value_name = "FILE")]
    pub keys: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `invarlock advanced attest inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The signed file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// `invarlock plan …`.
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Fix the criteria of an evaluation before it runs, and sign them
    #[command(after_help = "Examples:\n  \
        invarlock plan lock --dataset valid.jsonl --signing-key alice.key -o plan.lock.json\n  \
        invarlock evaluate --lock plan.lock.json --dataset valid.jsonl --baseline base/ --subject int8/\n  \
        invarlock verify --lock plan.lock.json reports/eval")]
    Lock(LockArgs),
}

/// `invarlock plan lock`.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// Preset: dataset and window settings
    #[arg(long, value_name = "FILE.yaml", conflicts_with = "dataset")]
    pub preset: Option<PathBuf>,
    /// Dataset: rows with a "text" member (JSON lines, JSON, CSV, TSV, Parquet; also .gz, .zst), or lines of text (.txt)
    #[arg(long, value_name = "FILE")]
    pub dataset: Option<PathBuf>,
    /// Also fix the baseline checkpoint
    #[arg(long, value_name = "DIR")]
    pub baseline: Option<PathBuf>,
    /// Profile: dev (the preset's windows), ci_cpu (120 + 120), ci (240 + 240), release (400 + 400)
    #[arg(long, default_value = "ci", value_name = "NAME")]
    pub profile: String,
    /// Tier of the gates: conservative, balanced or aggressive
    #[arg(long, default_value = "balanced", value_name = "NAME")]
    pub tier: String,
    /// Ed25519 key that signs the lock (PKCS #8 PEM or OpenSSH; mode 600)
    #[arg(long, value_name = "FILE")]
    pub signing_key: PathBuf,
    /// File to write
    #[arg(short, long, default_value = "plan.lock.json", value_name = "FILE")]
    pub output: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
}
