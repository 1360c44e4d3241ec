//! Moving images between the store, layouts, archives and registries.
//!
//! Every source is untrusted: each blob is verified by the digest that refers to it. Nothing here opens a socket: registries are reached
//! through [`Remote`], which the caller supplies.

mod archive_file;
pub(crate) mod docker_archive;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod local;
pub(crate) mod oci_archive;
mod platform;
pub(crate) mod pull;
mod push;
mod remote;
pub(crate) mod resolve;

pub use import::Imported;
pub(crate) use local::LocalImages;
pub use pull::Pulled;
pub use remote::{Document, Opener, Remote};
pub use resolve::ResolvedImage;
