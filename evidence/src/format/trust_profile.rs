//! A trust profile: everything that a recipient of evidence requires, in one file.

use super::tiers::TiersFile;
use serde::{Deserialize, Serialize};

/// `format_version` of a trust profile.
pub const TRUST_FORMAT: &str = "invarlock-trust-v1";

/// The demands. Absent members demand nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TrustProfile {
    /// Always [`TRUST_FORMAT`].
    pub format_version: String,
    /// Name of the profile that the gates are judged with; `ci` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Name of the tier that the gates are judged with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// `sha256:` and the digest of the baseline checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_checkpoint: Option<String>,
    /// `sha256:` and the digest of the subject checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `sha256:` and the digest of the dataset files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// `sha256:` and the digest of the image manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Public keys, one of which must have signed the evidence: each in PEM or as a line of OpenSSH.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// `sha256:` and the digest of the plan lock that the evaluation must have been made under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Limits that the guards must have been judged with instead of those of the tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<TiersFile>,
    /// Largest age of the evidence, such as `30d` or `12h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<String>,
    /// Controls that may be disabled: `allow_network`, `custom_seccomp_profile`, `device`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Whether execution on the host is accepted.
    #[serde(default)]
    pub accept_host_execution: bool,
    /// Whether evidence of other makers is accepted.
    #[serde(default)]
    pub accept_foreign: bool,
}
