//! Evidence for display: read like the verifier reads it and checked against its schema, but not verified.

use super::{UpstreamVersion, parse, read, resolve, schema};
use crate::numerics::digest::sha256_hex;
use crate::{Error, newer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// An evaluation report that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenReport {
    /// Path of the file.
    pub path: PathBuf,
    /// The report.
    pub report: Value,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

/// The evaluation report that a file or directory names. An error unless it is valid by schema `v1`.
pub fn open_report(path: &Path) -> Result<OpenReport, Error> {
    let file = resolve(path).map_err(Error::input)?;
    let failed = |why: String| Error::input(format!("reading evaluation report {}: {why}", file.display()));
    let bytes = read::read_evidence(&file, read::REPORT_LIMIT).map_err(|why| failed(why.to_string()))?;
    let report = parse(&bytes, true).map_err(failed)?;
    if let Some(newer) = newer::sentence(&report) {
        return Err(failed(newer).with_hint(newer::REMEDY));
    }
    match schema::report_faults(&report, UpstreamVersion::V0_12).first() {
        Some(fault) => Err(failed(format!("it is not a valid evaluation report: {fault}"))),
        None => Ok(OpenReport { path: file, report, sha256: sha256_hex(&bytes) }),
    }
}

/// The manifest at `path`; `None` if it does not exist.
pub fn open_manifest(path: &Path) -> Result<Option<Value>, Error> {
    let failed = |why: String| Error::input(format!("reading runtime manifest {}: {why}", path.display()));
    match read::read_evidence(path, read::MANIFEST_LIMIT) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(failed(why.to_string())),
        Ok(bytes) => parse(&bytes, true).map(Some).map_err(failed),
    }
}
