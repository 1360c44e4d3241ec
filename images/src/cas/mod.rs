//! Content-addressed storage: blobs by digest, and OCI layouts that contain them.
//!
//! Blobs are untrusted until their digest is verified, also those in the store.

pub(crate) mod blobs;
pub(crate) mod files;
pub(crate) mod layout;
pub(crate) mod locks;
pub(crate) mod partial_blob;

pub(crate) use blobs::{Blob, BlobSource, LayerReader};
pub(crate) use layout::{Layout, LockedLayout};
pub use partial_blob::Sink;
