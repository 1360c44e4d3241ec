//! Images by digest: where they lie, what a reference means, and trees that are what the digest says.
//!
//! In the order of an image's life: [`Reference`] (what the user typed), `blobs` and `layout` (an OCI image layout: blobs and an index,
//! every byte read through a verifying reader), `build` (the default image from one file, others from
//! directories and archives), `sbom` (what an image is made of), `bundle` and `docker` (the same in archives), `resolve` (reference → manifest →
//! config → layers), `import` and `export`, `pull`, `receive` and `push` (the same with
//! a [`Remote`], which another room makes: nothing here opens a socket), `packing`, `archive` and `unpack` (a hostile tar becomes a tree, or an error), `record` and `tree` (what was unpacked,
//! verified before each use), `trees` (unpacked layers, shared by all images), and [`Store`], which ties them together; `manage` has
//! what is done with images besides running them.
//!
//! # The store
//!
//! ```text
//! oci-layout, index.json        an OCI image layout; tags are `org.opencontainers.image.ref.name`
//! blobs/sha256/<hex>
//! trees/sha256-<diff id>/       root/ is the unpacked layer, record what it must hold, stamps what the file system notes of changes,
//!                               verity the digests by which the kernel holds its files, where that was asked for
//! trees/sha256-<diff id>.seal   digest of that record, and totals
//! trees/empty/                  a directory with nothing in it
//! ```
//!
//! Files are written beside their place, synced and renamed; a layer gets its name when it is whole. Whatever kills us leaves a store
//! that can be used, with at most things in it that the next unpacking or [`Store::gc`] sweeps. The store itself is 0700, a container
//! gets its trees by handle; what is in a tree is as in the image, without write permission for group and others: a container's
//! unprivileged id must be able to read it. That nobody else may *write* is checked when the store is opened.
//! The record of a tree finds every change short of one that rewrites tree, record and seal alike, which takes the store's owner.
//!
//! # What a tree does not have
//!
//! Owners and times of directories, set-id bits, extended attributes but those of the user's name space, and, where that is allowed,
//! devices and fifos; what was dropped is counted in the record. Layers are unpacked each for itself, so nothing that one of them says
//! can lead into another. Names that are not UTF-8 are answered with [`Error::Unsupported`].

#![deny(unsafe_code)]

mod archive;
mod attributes;
mod blobs;
mod build;
mod bundle;
mod cursor;
mod digest;
mod docker;
mod export;
mod files;
#[cfg(feature = "fuzz")]
#[allow(clippy::expect_used, reason = "a fuzz target panics where something is wrong")]
pub mod fuzz;
mod grow;
pub mod hooks;
mod import;
mod layout;
mod manage;
mod name;
mod packing;
mod parallel;
mod pipe;
mod policy;
mod pull;
mod push;
mod receive;
mod record;
mod reference;
mod remote;
mod resolve;
mod sbom;
mod store;
mod sys;
mod tree;
mod trees;
mod unpack;
mod verify;
mod verity;

pub use build::{Base, Built, Changes, LeftOut, Recipe, parse_command, parse_pair, parse_time};
pub use digest::Digest;
pub use import::{Imported, Progress};
pub use invarlock_error::{Error, Kind, Result};
pub use manage::{Checked, Freed};
pub use name::RegistryName;
pub use policy::{Policy, SpecialFilePolicy};
pub use pull::Pulled;
pub use record::Totals;
pub use reference::Reference;
pub use remote::{Document, OfTotal, Opener, Remote, Sink};
pub use resolve::{Layer, ResolvedImage};
pub use store::{ListedImage, RootfsOptions, Store, VerifiedRootfs};
pub use verify::{Level, Verify};
