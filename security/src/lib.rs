//! Network policy, allowances, and the safety of paths.
//!
//! What is dangerous is a value here, and whoever does it must hold it: a client of the network is made only from a [`Network`], and
//! that comes only out of [`Allowances`] that say so. Temporary directories are made only as [`SecureTempDir`]; what is used from
//! the file system without being named by the user in this command is first asked about with [`is_secure_path`].

#![forbid(unsafe_code)]

mod allow;
mod claim;
mod group;
mod network;
mod path;
mod tempdir;

pub use allow::{Allowance, Allowances, Flags, Source, truth};
pub use claim::{abandoned, claim};
pub use invarlock_error::{Error, Kind, Result};
pub use network::{Network, deny_network_for_this_process};
pub use path::{is_secure_path, secure_executable};
pub use tempdir::{SecureTempDir, secure_tempdir};
