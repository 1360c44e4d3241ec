//! OCI bundles: a directory with a root file system and its configuration, `config.json`.
//!
//! [`OwnBundle`] (`write.rs`) describes a container of this crate, for other runtimes. [`BundleConfig`] (`config.rs`) reads a configuration that
//! was made elsewhere. The boundary of a run stays as it is. Each member of the configuration is applied, or is the same as the boundary, or
//! is listed as not granted because the container runs with less, or is an error that names it:
//!
//! - What a program can usually do without, and container tools ask for by default, is not granted.
//! - What a program asks for by name because it needs it (a privilege, a device, a program on the host), and a restriction that this crate
//!   cannot apply, is an error.
//!
//! Members that the types of `oci-spec` do not have are ignored, as the specification requires.

mod config;
mod linux;
mod mounts;
mod process;
mod reader;
mod write;

pub use config::BundleConfig;
pub use mounts::{BundleMount, BundleSource};
pub use reader::{BundleLimits, NotGranted};
pub use write::OwnBundle;
