//! `manifest.json` of a pack.

use super::{CHECKSUMS, MANIFEST};
use crate::format::to_value;
use crate::json;
use crate::numerics::digest::python_json;
use invarlock_error::{Context as _, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `format` of a manifest.
pub(super) const FORMAT: &str = "evidence-pack-v1";

/// The manifest. Members that only the Python package's repository writes are kept in `other`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct PackManifest {
    /// Always `evidence-pack-v1`.
    pub format: String,
    /// `low`, `medium`, or `high` if the pack names the source and the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_level: Option<String>,
    /// Always `checksums.sha256`.
    pub checksums_sha256: String,
    /// SHA-256 of that file, hexadecimal.
    pub checksums_sha256_digest: String,
    /// The final verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Reference>,
    /// How the reports were verified when the pack was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<ReportCounts>,
    /// Where the source is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<Invocation>,
    /// Where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Reference>,
    /// Further files that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub materials: Vec<Reference>,
    /// The key that signs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key_fingerprint: Option<String>,
    /// All other members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `invocation`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Invocation {
    /// The file about the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_source: Option<Reference>,
    /// All other members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A file of the pack and its digest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct Reference {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its path in the pack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `sha256:` and its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// All other members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `verification` of a manifest. The Python package reads each member only where it is present.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ReportCounts {
    /// Reports that verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_reports: Option<u64>,
    /// Reports that must fail; 0 in a pack that is built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_injection_reports: Option<u64>,
    /// Reports that failed; 0 in a pack that is built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_reports: Option<u64>,
    /// The profile that they were verified with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_profile: Option<String>,
    /// `report` in a pack that is built here: each report's own assurance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_assurance: Option<String>,
    /// All other members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl PackManifest {
    /// The manifest in a file.
    ///
    /// # Errors
    /// The bytes are no manifest, or not what [`Self::to_bytes`] gives.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let reading = || format!("reading {MANIFEST}");
        let value = json::parse(MANIFEST, bytes)?;
        let named = value.get("format").and_then(Value::as_str).unwrap_or_default();
        if named != FORMAT {
            return Err(Error::input(format!("{MANIFEST} has the format {named:?}, expected {FORMAT:?}")));
        }
        let manifest: Self = serde_json::from_value(value)
            .map_err(|why| Error::input(why.to_string()))
            .with_context(reading)?;
        if manifest.checksums_sha256 != CHECKSUMS {
            return Err(Error::input(format!("{MANIFEST}: checksums_sha256 must be {CHECKSUMS:?}")));
        }
        match manifest.to_bytes() == bytes {
            true => Ok(manifest),
            false => Err(Error::input(format!(
                "{MANIFEST} has another order, spelling or white space than a built one"
            ))),
        }
    }

    /// The one form of the file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        (python_json(&to_value(self), ", ", ": ") + "\n").into_bytes()
    }

    /// Every reference to a file of the pack, with the member that contains it.
    pub(super) fn references(&self) -> Vec<(&'static str, &Reference)> {
        let source = self.invocation.as_ref().and_then(|invocation| invocation.config_source.as_ref());
        let single = [
            ("subject", self.subject.as_ref()),
            ("invocation.config_source", source),
            ("environment", self.environment.as_ref()),
        ];
        let single = single.into_iter().filter_map(|(name, reference)| Some((name, reference?)));
        single.chain(self.materials.iter().map(|material| ("materials", material))).collect()
    }
}
