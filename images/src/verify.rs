//! How thoroughly a tree is verified before it is used.

use serde::Serialize;

use crate::{Error, Result};

/// Images whose files have up to this many bytes are always verified in full unless something else is asked for: it takes less than a
/// fifth of a second.
pub(crate) const SMALL_IMAGE: u64 = 256 << 20;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// In full for a small image, else quickly.
    #[default]
    Auto,
    /// Every name, mode, link and attribute compared, every byte hashed; also of the blobs that the trees were unpacked from.
    Full,
    /// What the file system notes of every change compared.
    Quick,
    /// Every name, mode, link and attribute compared, every file held by the kernel with the digest that was noted (fs-verity). Where they
    /// are not held yet, they are verified in full and then are.
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
            other => Err(Error::input(format!(
                "{other:?} is no way to verify an image: auto, full, quick or fsverity"
            ))),
        }
    }
}

/// How a tree was verified before use. The weaker level is the lesser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Level {
    /// Inode, size and both times of everything are as they were when it was last verified in full. A change made as root, below the
    /// file system or with the clock moved is not found.
    Quick,
    /// Every name, mode, link and attribute was compared, and the kernel holds every file with the digest that was noted when all of it was
    /// hashed. It refuses to change them, and to give other bytes of them.
    FsVerity,
    /// Every name, mode, link and attribute was compared, and every byte hashed.
    Full,
}
