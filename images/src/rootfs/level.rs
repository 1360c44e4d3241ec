//! How thoroughly an extracted layer is verified before it is used.

use serde::Serialize;

use crate::{Error, Result};

/// Bytes of the files of an image up to which [`Verify::Auto`] is [`Verify::Full`]: this takes less than 0.2 seconds.
pub(super) const SMALL_IMAGE: u64 = 256 << 20;

/// The verification that the user requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// [`Verify::Full`] for a small image, otherwise [`Verify::Quick`].
    #[default]
    Auto,
    /// Compare every name, mode, link and attribute, and hash every byte, also of the compressed layers.
    Full,
    /// Compare change stamps: inode, size, modification time and change time.
    Quick,
    /// Compare every name, mode, link and attribute, and the fs-verity digest of every file. If fs-verity is not enabled yet, enable it and
    /// verify in full.
    FsVerity,
}

impl std::str::FromStr for Verify {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "full" => Ok(Self::Full),
            "quick" => Ok(Self::Quick),
            "fsverity" | "fs-verity" => Ok(Self::FsVerity),
            other => Err(Error::input(format!("unknown verification level {other:?}"))
                .with_hint("use auto, full, quick or fsverity")),
        }
    }
}

/// How an extracted layer was verified. Weaker levels are less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Level {
    /// All change stamps are as they were after the last full verification. Changes made by root, below the file system, or with a changed
    /// clock are not detected.
    Quick,
    /// Every name, mode, link and attribute was compared, and every file has the fs-verity digest recorded after a full verification. The
    /// kernel refuses to change such files, and to return other bytes of them.
    FsVerity,
    /// Every name, mode, link and attribute was compared, and every byte hashed.
    Full,
}
