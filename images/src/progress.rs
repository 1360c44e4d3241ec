//! Callbacks that report progress.

/// Called with the number of bytes done since the last call.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// Called with the number of bytes done since the last call, and with the total.
pub type TransferProgress<'a> = &'a (dyn Fn(u64, u64) + Sync);
