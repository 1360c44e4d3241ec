//! Network policy, allowances, and the safety of paths.
//!
//! A dangerous operation needs a value as permission: a network client is created only from a [`Network`], which only [`Allowances`]
//! give. Temporary directories are created only as [`SecureTempDir`]. Files that are used without being named by the user in this
//! command are first checked with [`is_secure_path`].
//!
//! Trusted: the kernel, root and the caller. Untrusted: every other user of the machine.

#![forbid(unsafe_code)]

mod allow;
mod claim;
mod group;
mod network;
mod path;
mod tempdir;

pub use allow::{Allowance, Allowances, ExecutionMode, Flags, Source, truth};
pub use claim::{abandoned, claim};
pub use invarlock_error::{Error, Kind, Result};
pub use network::{Network, deny_network_for_this_process};
pub use path::{is_secure_path, secure_executable};
pub use tempdir::{SecureTempDir, secure_tempdir};
