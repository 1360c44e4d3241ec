//! Evidence packs: evaluations with everything that verifies them, in one directory or one archive.
//!
//! The layout is that of the Python package InvarLock 0.12.1 (`evidence-pack-v1`). A pack is untrusted. It is read into memory once, within
//! limits, and every check is made on these bytes: [`inspect`](Inspection::of) looks at manifest, signature and checksums, and the caller
//! verifies the reports.

pub mod archive;
mod build;
mod checksums;
mod files;
mod final_verdict;
mod inspect;
mod manifest;
mod signature;

pub use build::{BuildInput, Material, README, build, check_material_name, report_path};
pub use files::{FILE_LIMIT, MAX_DEPTH, MAX_FILES, PACK_LIMIT, PackFiles};
pub use final_verdict::{FinalVerdict, ReportVerdict};
pub use inspect::{Inspection, Signer};
pub use manifest::{PackManifest, Reference, ReportCounts};
pub use signature::SignatureFile;

use crate::evaluation::{BASELINE_REPORT, REPORT, SUBJECT_REPORT};
use crate::{attestation, plan_lock};

/// The manifest.
pub const MANIFEST: &str = "manifest.json";
/// The signature of the manifest.
pub const SIGNATURE: &str = "manifest.signature.json";
/// SHA-256 of every other file.
pub const CHECKSUMS: &str = "checksums.sha256";
/// The verdict that the pack is about.
pub const FINAL_VERDICT: &str = "results/final_verdict.json";

/// Files that belong to a report and lie beside it: ours, then those of the Python package.
pub const SIDE_FILES: [&str; 11] = [
    crate::manifest::FILE_NAME,
    BASELINE_REPORT,
    SUBJECT_REPORT,
    attestation::FILE_NAME,
    plan_lock::FILE_NAME,
    "edit_metadata.json",
    "deployable_artifact_validation.json",
    "backend_inventory.json",
    "memory_report.json",
    "load_smoke.json",
    "inference_smoke.json",
];

/// Whether a path of a pack is an evaluation report.
fn is_report(path: &str) -> bool {
    path.strip_prefix("reports/")
        .and_then(|path| path.rsplit_once('/'))
        .is_some_and(|(_, name)| name == REPORT)
}

/// Where a pack was refused. The numbers are the exit codes of the Python package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The pack is of InvarLock 0.13 or newer.
    Newer = 2,
    /// A required file does not exist.
    Missing = 3,
    /// A file is not of the right format.
    Format = 4,
    /// The signature is missing, wrong, or of another key.
    Signature = 5,
    /// A file is not the one that was packed.
    Integrity = 6,
    /// A report does not verify.
    Reports = 7,
}

impl Stage {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Newer => "newer",
            Self::Missing => "missing",
            Self::Format => "format",
            Self::Signature => "signature",
            Self::Integrity => "integrity",
            Self::Reports => "reports",
        }
    }
}

/// Why a pack was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where.
    pub stage: Stage,
    /// A sentence for each fault.
    pub errors: Vec<String>,
}

impl Refusal {
    /// A refusal for one reason.
    pub fn new(stage: Stage, error: impl Into<String>) -> Self {
        Self { stage, errors: vec![error.into()] }
    }
}
