//! The file of `--lock`, and what `plan lock` writes.

use crate::error::{Context as _, Error, Result};
use crate::inputs::not_read;
use invarlock_evidence::format::plan::Plan;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::plan_lock::PlanLock;
use invarlock_evidence::signing::dsse::{ENVELOPE_LIMIT, Envelope};
use invarlock_evidence::verify::read_evidence;
use std::path::Path;

/// A plan lock that was read. Its signatures are for verifiers, who have the keys.
pub struct LockFile {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their SHA-256.
    pub sha256: String,
    lock: PlanLock,
}

impl LockFile {
    /// Reads the lock.
    pub fn read(path: &Path) -> Result<Self> {
        let reading = || format!("reading the plan lock {}", path.display());
        let bytes = read_evidence(path, ENVELOPE_LIMIT).map_err(|why| not_read(&why));
        let bytes = bytes.with_context(reading)?;
        let lock = Envelope::parse(&bytes).and_then(|envelope| PlanLock::read(&envelope));
        let lock = lock.with_context(reading).hint("make a plan lock with `invarlock plan lock`")?;
        Ok(Self { sha256: sha256_hex(&bytes), bytes, lock })
    }

    /// Refuses a plan that the lock does not allow.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        match self.lock.broken_by(plan).first() {
            None => Ok(()),
            Some(broken) => Err(Error::input(format!("--lock: {broken}")))
                .hint("evaluate with the options of the lock, or leave out --lock"),
        }
    }
}
