//! Images by digest: where they lie, what a reference means, and trees that are what the digest says.
//!
//! In the order of an image's life: [`Reference`] (what the user typed), `layout` (an OCI image layout: blobs and an index, every byte
//! read through a verifying reader), `build` (the default image from one file), `resolve` (reference → manifest → config → layers),
//! `archive` and `unpack` (a hostile tar becomes a tree, or an error), `tree` (what was unpacked, re-hashed before each use), and
//! [`Store`], which ties them together.
//!
//! # The store
//!
//! ```text
//! lock                          held by whoever writes; dies with its holder
//! oci-layout, index.json        an OCI image layout; tags are `org.opencontainers.image.ref.name`
//! blobs/sha256/<hex>
//! trees/sha256-<diff id>/       root/ is the unpacked layer, index.json what it must hold
//! trees/sha256-<diff id>.index  the digest of that index.json
//! ```
//!
//! Files are written beside their place, synced and renamed. The store itself is 0700, a container gets its trees by handle; what is
//! in a tree is as in the image, without write permission for group and others: a container's unprivileged id must be able to read it. That nobody else may *write* is checked when the store is opened.
//! The index of a tree finds every change short of one that rewrites tree, index and digest alike, which takes the store's owner.
//!
//! # What is not built
//!
//! Registries, zstd layers and whiteouts (files that a layer deletes from the one below) are answered with [`Error::Unsupported`].
//! Extended attributes and owners of an archive are dropped, set-id bits stripped, devices, fifos and sparse files refused.

#![forbid(unsafe_code)]

mod archive;
mod build;
mod digest;
mod error;
mod layout;
mod reference;
mod resolve;
mod store;
mod tree;
mod unpack;

pub use digest::Digest;
pub use error::{Error, Result};
pub use reference::Reference;
pub use resolve::{Layer, ResolvedImage};
pub use store::{Level, ListedImage, Store, VerifiedRootfs};
