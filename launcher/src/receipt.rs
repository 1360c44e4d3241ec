//! `verify --receipt`: the signed statement of what was accepted.
//!
//! A receipt exists only for accepted evidence, and never replaces a file: a script that finds one after a refusal would take the receipt
//! of an earlier verification for that of this one.

use crate::args::VerifyArgs;
use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::{check_writable, write_output};
use crate::keys;
use invarlock_evidence::receipt::{self, Policy};
use invarlock_evidence::signing::dsse::Envelope;
use invarlock_evidence::signing::keys::SigningKey;
use invarlock_evidence::verify::Verdict;
use std::path::{Path, PathBuf};

/// What was asked for.
pub struct ReceiptRequest {
    path: PathBuf,
    key: SigningKey,
}

impl ReceiptRequest {
    /// The receipt of a command line. Everything that could prevent it is checked before the verification.
    pub fn of(args: &VerifyArgs) -> Result<Option<Self>> {
        let (Some(path), Some(key)) = (&args.receipt, &args.verifier_key) else { return Ok(None) };
        if args.reports.len() > 1 {
            return Err(Error::input(format!("--receipt: {} reports", args.reports.len())))
                .hint("verify each report with a receipt of its own");
        }
        if path.symlink_metadata().is_ok() {
            return Err(Error::input(format!("--receipt {}: the file exists", path.display())))
                .hint("choose another file name, or remove the file; receipts are never replaced");
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        check_writable("--receipt", parent.unwrap_or_else(|| Path::new(".")))?;
        Ok(Some(Self { path: path.clone(), key: keys::signing(key)? }))
    }

    /// Writes the receipt of accepted evidence.
    pub fn write(self, verdict: &Verdict, policy: Policy, now: &str) -> Result<()> {
        let writing = || format!("writing the receipt {}", self.path.display());
        let statement = receipt::statement(verdict, policy, now).with_context(writing)?;
        write_output(&self.path, &Envelope::sign(statement.to_bytes(), &self.key).to_bytes(), false)
    }
}
