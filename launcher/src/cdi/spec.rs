//! A file of the Container Device Interface (CDI), as its specification 0.3 to 1.0 defines it, so far as a container here can have it.

use crate::error::{Context as _, Error, Kind, Result};
use serde::Deserialize;
use std::path::Path;

/// Largest file that is read.
pub const MAX_BYTES: u64 = 4 << 20;

/// The devices of one kind.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Version of the specification.
    cdi_version: String,
    /// `vendor/class`.
    pub kind: String,
    /// The devices.
    pub devices: Vec<Device>,
    /// What every container with one of the devices gets.
    #[serde(default)]
    pub container_edits: Edits,
}

/// One device.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its name.
    pub name: String,
    /// What a container with it gets.
    pub container_edits: Edits,
}

/// What a container gets. A member that is not here is an error.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Edits {
    /// Variables, `NAME=VALUE`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Entries of `/dev`.
    #[serde(default)]
    pub device_nodes: Vec<Node>,
    /// Files of the host.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Programs that other engines run on the host.
    #[serde(default)]
    pub hooks: Vec<Hook>,
}

/// An entry of `/dev`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its path in the container.
    pub path: String,
    /// Its path on the host, if that is another one.
    pub host_path: Option<String>,
    /// `c` (the default), `u`, `b` or `p`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// A file or directory of the host. Its options are not read: a mount here is read-only and has no more rights than they could give.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Its path on the host.
    pub host_path: String,
    /// Its path in the container.
    pub container_path: String,
}

/// A program of the host that changes the container.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// Its path.
    pub path: String,
    /// Its arguments; the first one is its name.
    #[serde(default)]
    pub args: Vec<String>,
}

impl Spec {
    /// Parses a file; JSON is YAML, too.
    ///
    /// # Errors
    /// It is not a specification, or asks for what a container here cannot have.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let spec: Self = serde_norway::from_slice(bytes)
            .map_err(|why| Error::input(why.to_string()))
            .with_context(|| format!("reading the device specification {}", path.display()))
            .map_err(|error| error.with_kind(Kind::Input))?;
        let major = spec.cdi_version.split('.').next();
        if !matches!(major, Some("0" | "1")) {
            return Err(Error::input(format!(
                "{}: cdiVersion {:?} is not supported; versions 0.3 to 1 are",
                path.display(),
                spec.cdi_version
            )));
        }
        Ok(spec)
    }
}
