//! `invarlock verify` and `invarlock advanced …`.

use super::{AttestCommand, CalibrateCommand, EvidencePackCommand};
use crate::policy::ACCEPTABLE;
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand, ValueEnum};
use invarlock_evidence::verify::reproduce::Amount;
use invarlock_images::Digest;
use std::path::PathBuf;

/// `invarlock verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    invarlock verify reports/eval\n  \
    invarlock verify --tier conservative --json a/evaluation.report.json b/evaluation.report.json\n  \
    invarlock verify --subject models/int8 --dataset valid.jsonl --max-age 30d reports/eval\n  \
    invarlock verify --key alice.pub reports/eval\n  \
    invarlock verify --reproduce --baseline-checkpoint base/ --subject int8/ --dataset valid.jsonl reports/eval\n  \
    invarlock verify --trust trust.json reports/eval\n  \
    invarlock verify --key alice.pub --receipt receipt.json --verifier-key bob.key reports/eval\n\n\
    Exit codes: 0 accepted, 1 a gate or a demand is not met, 2 usage, malformed or unusable input,\n\
    3 integrity: the evidence contradicts itself (all profiles but dev).")]
pub struct VerifyArgs {
    /// Evaluation reports, or directories that contain evaluation.report.json
    #[arg(required = true, value_name = "REPORT|DIR")]
    pub reports: Vec<PathBuf>,
    /// Profile: dev or ci_cpu (ratio and invariants), ci (every gate) or release (every gate and guard)
    #[arg(long, default_value = "ci", value_name = "NAME")]
    pub profile: String,
    /// Tier that the gates are judged with [default: that of the report]
    #[arg(long, value_name = "NAME")]
    pub tier: Option<String>,
    /// Run report of the baseline that must have been compared
    #[arg(long, value_name = "REPORT")]
    pub baseline: Option<PathBuf>,
    /// Baseline checkpoint that must have been measured: its directory or digest
    #[arg(long, value_name = "DIR|sha256:HEX")]
    pub baseline_checkpoint: Option<String>,
    /// Subject checkpoint that must have been measured: its directory or digest
    #[arg(long, value_name = "DIR|sha256:HEX")]
    pub subject: Option<String>,
    /// Dataset that must have been used: its file or digest
    #[arg(long, value_name = "FILE|sha256:HEX")]
    pub dataset: Option<String>,
    /// Digest of the image that must have run
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_digest, conflicts_with = "expected_runtime_image_digest")]
    pub image: Option<Digest>,
    /// Public key that must have signed the evidence; more than one: any of them
    #[arg(long = "key", value_name = "FILE")]
    pub keys: Vec<PathBuf>,
    /// Plan lock that the evaluation must have been made under: its file or digest
    #[arg(long, value_name = "FILE|sha256:HEX")]
    pub lock: Option<String>,
    /// Limits that the guards must have been judged with instead of those of the tier: the file of `evaluate --tiers`
    #[arg(long, value_name = "FILE.yaml")]
    pub tiers: Option<PathBuf>,
    /// Largest age of the evidence, such as 30d or 12h
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub max_age: Option<TimeDelta>,
    /// Trust profile: a JSON file with everything that is required, instead of the options for it
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "profile", "tier", "baseline_checkpoint", "subject", "dataset", "image", "keys", "lock", "tiers", "max_age",
        "runtime_provenance", "allow",
        "expected_runtime_image_digest", "accept_foreign", "upstream_parity",
    ])]
    pub trust: Option<PathBuf>,
    /// Measure randomly chosen windows of each arm again, here in a container, and compare the losses: N windows, or all. Without a value, so
    /// many that altered losses which change the verdict are found with a probability of 99 %. Needs --baseline-checkpoint, --subject and --dataset
    #[arg(long, value_name = "N|all", num_args = 0..=1, require_equals = true, default_missing_value = "enough", value_parser = parse_amount)]
    pub reproduce: Option<Amount>,
    /// Largest accepted difference between a recorded and a recomputed value
    #[arg(long, default_value_t = 1e-9, value_name = "NUMBER", value_parser = parse_number)]
    pub tolerance: f64,
    /// Write a signed receipt of an accepted verification of one report to this new file
    #[arg(long, value_name = "FILE", requires = "verifier_key", conflicts_with = "upstream_parity")]
    pub receipt: Option<PathBuf>,
    /// Ed25519 key of the verifier, which signs the receipt (PKCS #8 PEM or OpenSSH; mode 600)
    #[arg(long, value_name = "FILE", requires = "receipt")]
    pub verifier_key: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Accepted execution mode of the evaluator
    #[arg(long, value_enum, default_value = "container", value_name = "MODE")]
    pub runtime_provenance: Provenance,
    /// The same as --image, as the Python package spells it
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_digest)]
    pub expected_runtime_image_digest: Option<Digest>,
    /// Accept that this control was disabled: allow_network, custom_seccomp_profile or device; can be repeated
    #[arg(long, value_name = "CONTROL", value_parser = ACCEPTABLE, hide_possible_values = true)]
    pub allow: Vec<String>,
    /// Accept evidence of other makers; where its numbers come from is not checked
    #[arg(long)]
    pub accept_foreign: bool,
    /// Give the verdict of the Python package, with its known gaps (no strict checks)
    #[arg(long, conflicts_with_all = ["keys", "lock", "tiers", "reproduce", "allow"])]
    pub upstream_parity: bool,
}

fn parse_amount(text: &str) -> Result<Amount, &'static str> {
    match text {
        "enough" => Ok(Amount::Enough),
        "all" => Ok(Amount::All),
        number => match number.parse() {
            Ok(n) if n >= 2 => Ok(Amount::Windows(n)),
            _ => Err("use a number of windows, 2 or more, or all"),
        },
    }
}

fn parse_number(text: &str) -> Result<f64, &'static str> {
    text.trim().parse().map_err(|_| "use a number, such as 0.000001 or 1e-9")
}

/// Execution modes that a verifier accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Provenance {
    /// Only execution in a container
    Container,
    /// Also execution on the host
    Host,
}

/// `invarlock advanced …`.
#[derive(Debug, Subcommand)]
pub enum AdvancedCommand {
    /// Check that a runtime manifest belongs to a report
    #[command(after_help = "Example:\n  \
        invarlock advanced runtime-verify --report eval/evaluation.report.json --manifest eval/runtime.manifest.json")]
    RuntimeVerify(RuntimeVerifyArgs),
    /// Keys and signatures
    #[command(subcommand)]
    Attest(AttestCommand),
    /// Limits of the guards from many runs of a model that must pass
    #[command(subcommand)]
    Calibrate(CalibrateCommand),
    /// Packs of evidence: one signed directory or archive
    #[command(subcommand)]
    EvidencePack(EvidencePackCommand),
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
fn parse_digest(text: &str) -> Result<Digest, String> {
    let digest = Digest::parse(&text.trim().to_lowercase());
    digest.map_err(|why| format!("{why}; use sha256: and 64 hexadecimal digits"))
}

/// An age such as `30d` or `12h`.
pub fn parse_age(text: &str) -> Result<TimeDelta, &'static str> {
    const USAGE: &str = "use a whole number of days or hours, such as 30d or 12h";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(USAGE)?;
    let number: u32 = number.parse().map_err(|_| USAGE)?;
    let hours = match unit {
        "d" => i64::from(number) * 24,
        "h" => i64::from(number),
        _ => return Err(USAGE),
    };
    let age = TimeDelta::try_hours(hours).ok_or(USAGE)?;
    // No evidence is older than the epoch.
    let oldest = Utc::now().checked_sub_signed(age);
    oldest.filter(|oldest| *oldest > DateTime::UNIX_EPOCH).map(|_| age).ok_or(USAGE)
}

#[cfg(test)]
mod tests {
    use super::parse_age;

    #[test]
    fn ages_are_days_or_hours() {
        assert_eq!(parse_age("2d").map(|age| age.num_hours()), Ok(48));
        assert_eq!(parse_age("12h").map(|age| age.num_hours()), Ok(12));
        for wrong in ["", "d", "5", "5m", "-1d", "1.5d", "999999999d", "dé"] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }
}
