//! How much a layer may be, and what becomes of things in it that no container of ours gets.

use crate::record::Totals;
use crate::{Error, Result};

/// How much one layer may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes of the archive, and of all files.
    pub bytes: u64,
    /// Entries, and directories made on the way.
    pub entries: u64,
    /// Bytes of the archive for each of the blob, above [`Bounds::always`].
    pub ratio: u64,
    /// Bytes of the archive that are fine whatever the blob's size.
    pub always: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 1_000_000, ratio: 200, always: 64 << 20 }
    }
}

impl Bounds {
    /// How many bytes a blob of `size` may unpack to.
    pub fn most(&self, size: u64) -> u64 {
        self.bytes.min(self.always.max(size.saturating_mul(self.ratio)))
    }
}

/// What becomes of a thing that no container of ours gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialFilePolicy {
    /// The image is not unpacked.
    Refuse,
    /// The image is unpacked without it, and the tree says so.
    Drop,
}

/// What an image may have that its tree does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Devices and fifos.
    pub devices: SpecialFilePolicy,
    /// Set-user-id and set-group-id bits.
    pub set_id: SpecialFilePolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self { devices: SpecialFilePolicy::Refuse, set_id: SpecialFilePolicy::Drop }
    }
}

impl Policy {
    /// Whether a tree that was unpacked under another policy would have been under this one.
    pub(crate) fn allows(&self, totals: &Totals) -> Result<()> {
        let refused = |what: &str, policy, dropped| match policy == SpecialFilePolicy::Refuse && dropped > 0 {
            true => Err(Error::safety(format!("it has {what}, which were to be refused"))),
            false => Ok(()),
        };
        refused("devices or fifos", self.devices, totals.dropped_devices)?;
        refused("set-id programs", self.set_id, totals.dropped_set_id)
    }
}
