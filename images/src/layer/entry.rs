//! The entries of an extracted layer.

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// One entry, as a line of a record. Files and links are in the order of the archive, followed by directories and whiteouts. No path occurs
/// twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub(crate) enum Line {
    File {
        path: String,
        mode: u32,
        size: u64,
        sha256: Digest,
        /// Digest of its extended attributes, if it has any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attributes: Option<Digest>,
    },
    Symlink {
        path: String,
        target: String,
    },
    /// Another name of a file that has its own line.
    Hardlink {
        path: String,
        target: String,
    },
    /// A directory. The root has the empty path.
    Directory {
        path: String,
        mode: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attributes: Option<Digest>,
    },
    /// Removes the entry of this path from lower layers.
    Whiteout {
        path: String,
    },
    /// The last line.
    End(Totals),
}

impl Line {
    pub fn path(&self) -> &str {
        match self {
            Self::File { path, .. }
            | Self::Symlink { path, .. }
            | Self::Hardlink { path, .. }
            | Self::Directory { path, .. }
            | Self::Whiteout { path } => path,
            Self::End(_) => "",
        }
    }
}

/// Totals of an extracted layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Totals {
    /// Number of entries, including the root.
    pub entries: u64,
    /// Size of all files in bytes.
    pub bytes: u64,
    /// Number of whiteouts and opaque directories, which remove entries of lower layers.
    pub removals: u64,
    /// Whether the root is opaque, which hides all lower layers.
    pub opaque_root: bool,
    /// Number of set-id bits in the archive that were dropped.
    pub dropped_set_id: u64,
    /// Number of devices and fifos in the archive that were dropped.
    pub dropped_devices: u64,
    /// Number of extended attributes in the archive that were dropped.
    pub dropped_attributes: u64,
}
