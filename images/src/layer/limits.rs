//! Limits of a layer, and the treatment of devices, fifos and set-id bits, which no container gets.

use super::entry::Totals;
use crate::{Error, Result};

/// Limits of one layer.
///
/// Blocks of zeros are written as holes. They cost time but no disk space, and many images have long runs of them (`/var/log/lastlog`), so they
/// have a higher limit than other bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most bytes of the uncompressed archive, and of all files.
    pub bytes: u64,
    /// Most entries, including directories that the archive only implies.
    pub entries: u64,
    /// Most bytes of the archive per byte of the blob, above what is always allowed.
    pub ratio: u64,
    /// Bytes of the archive, without the holes in files, that are allowed for a blob of any size.
    pub always_allowed: u64,
    /// Bytes of the archive, and of all files, that are allowed for a blob of any size.
    pub always_allowed_with_holes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: MAX_LAYER_SIZE,
            entries: 1_000_000,
            ratio: 200,
            always_allowed: 64 << 20,
            always_allowed_with_holes: 4 << 30,
        }
    }
}

impl Limits {
    /// The most bytes of the archive, without the holes in files, for a blob of `size` bytes.
    pub fn max_data(&self, size: u64) -> u64 {
        self.bytes.min(self.always_allowed.max(size.saturating_mul(self.ratio)))
    }

    /// The most bytes of the archive, and of all files with their holes, for a blob of `size` bytes. `allowed`: those that the user allows.
    pub fn max_archive(&self, size: u64, allowed: Option<u64>) -> u64 {
        let without = self.max_data(size).max(self.always_allowed_with_holes);
        self.bytes.min(without.max(allowed.unwrap_or(0)))
    }
}

/// Most entries of all layers of an image: inodes of the store's file system.
const MAX_IMAGE_ENTRIES: u64 = 2_000_000;

/// Fails if all layers of an image together have too many entries.
pub(crate) fn check_image_entries(entries: u64) -> Result<()> {
    if entries <= MAX_IMAGE_ENTRIES {
        return Ok(());
    }
    Err(Error::safety(format!(
        "the layers of the image have more than {MAX_IMAGE_ENTRIES} entries (files and directories) together"
    ))
    .with_hint("use an image with fewer files"))
}

/// What is done with a file type or mode bit that no container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialFilePolicy {
    /// Refuse the image.
    Refuse,
    /// Drop it, and count it in [`Totals`].
    Drop,
}

/// What the user can do about devices.
pub(crate) const DROP_DEVICES: &str = "containers have their own /dev: leave out the devices and fifos of the image with `--drop-devices` of \
     `invarlock runtime image import`, `pull` or `build`, which is remembered for the image";

/// What the user can do about files with long runs of zeros.
pub(crate) const LAYER_SIZE: &str = "remove the file from the image (`useradd --no-log-init` does not write a large /var/log/lastlog), or allow \
     more with `--layer-size SIZE` of `invarlock runtime image import`, `pull` or `build`, which is remembered for the image";

/// Most bytes that a user can allow for all files of a layer.
pub const MAX_LAYER_SIZE: u64 = 64 << 30;

/// What is done with contents of an image that no container gets, and what is allowed beyond the usual limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Devices and fifos.
    pub devices: SpecialFilePolicy,
    /// Set-user-id and set-group-id bits.
    pub set_id: SpecialFilePolicy,
    /// The most bytes that all files of a layer may have with their holes, if more than usual.
    pub layer_size: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { devices: SpecialFilePolicy::Refuse, set_id: SpecialFilePolicy::Drop, layer_size: None }
    }
}

impl Policy {
    /// Checks that a layer that was extracted under another policy is allowed by this one. `size`: that of its blob.
    pub(crate) fn check(&self, totals: &Totals, size: u64) -> Result<()> {
        let max_bytes = Limits::default().max_archive(size, self.layer_size);
        if totals.bytes > max_bytes {
            return Err(too_large(max_bytes));
        }
        let check = |what: &str, policy, dropped| match policy == SpecialFilePolicy::Refuse && dropped > 0 {
            true => Err(Error::safety(format!("it contains {what}, which this command refuses"))),
            false => Ok(()),
        };
        check("devices or fifos", self.devices, totals.dropped_devices)
            .map_err(|error| error.with_hint(DROP_DEVICES))?;
        check("set-id programs", self.set_id, totals.dropped_set_id)
    }
}

/// The error for files that are too large with their holes.
pub(crate) fn too_large(max_bytes: u64) -> Error {
    Error::safety(format!(
        "files with more than the {max_bytes} bytes allowed for a layer of this size, holes included"
    ))
    .with_hint(LAYER_SIZE)
}

#[cfg(test)]
mod tests {
    use super::{Limits, MAX_IMAGE_ENTRIES, check_image_entries};

    #[test]
    fn image_has_fewer_entries_than_its_layers_may_have() {
        // Two layers at their own limit are the most.
        assert_eq!(MAX_IMAGE_ENTRIES, 2 * Limits::default().entries);
        assert!(check_image_entries(MAX_IMAGE_ENTRIES).is_ok());
        assert!(check_image_entries(MAX_IMAGE_ENTRIES + 1).is_err());
    }
}
