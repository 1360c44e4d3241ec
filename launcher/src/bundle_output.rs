//! The bundle of a run in JSON output.

use invarlock_runtime::NotGranted;
use serde::Serialize;

/// The bundle of a run, in JSON output.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct BundleOutput {
    /// Its directory as the user named it.
    pub path: String,
    /// The SHA-256 of its `config.json`, hexadecimal.
    pub config_sha256: String,
    /// The directory of the root file system, without links.
    pub root: String,
    /// Always `none`: the root file system is not an image, so there is nothing to compare it with.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "none")))]
    pub verification: &'static str,
    /// What `config.json` asks for and the container runs without.
    pub not_granted: Vec<NotGranted>,
}
