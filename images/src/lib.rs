//! Images by digest: a store, and the transport, verification, extraction and building of images.
//!
//! Modules, each of which uses only those before it: `oci` (the data model), `reference` (how users name images), `cas` (blobs and layouts),
//! `tar` (a strict reader and a writer), `layer` (extraction and creation), `rootfs` (the cache of extracted layers), `transport` (import,
//! export, pull and push), `sbom`, `build`, `tags`, `check`, `gc`, and [`Store`], the facade.
//!
//! Images, layouts, archives and registry responses are untrusted. Nothing here opens a socket: [`Remote`] is implemented elsewhere.
//!
//! # The store
//!
//! ```text
//! oci-layout, index.json        an OCI image layout; tags are `org.opencontainers.image.ref.name`
//! blobs/sha256/<hex>
//! trees/sha256-<diff id>/       an extracted layer: root/ are its files, record lists them, stamps are their change stamps, and
//!                               verity their fs-verity digests, if fs-verity was requested
//! trees/sha256-<diff id>.seal   the digest of the record, and totals
//! trees/empty/                  an empty directory
//! ```
//!
//! Files are written to a temporary name, synced and renamed; an extracted layer gets its name when it is complete. After a kill the store is
//! usable, with at most leftovers that the next extraction or [`Store::gc`] deletes. The directory of the store has mode 0700, and containers
//! get extracted layers by handle. Files of a layer have the modes of the image without write permission for group and others: the
//! unprivileged id of a container must be able to read them.
//!
//! # What an extracted layer does not contain
//!
//! Owners, timestamps of directories, set-id bits, extended attributes outside the `user.` name space and, if the policy drops them, devices
//! and fifos; the record counts what was dropped. Each layer is extracted separately, so a layer cannot affect another one. Names that are not
//! UTF-8 are unsupported.

#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod build;
mod cas;
mod check;
#[cfg(feature = "fuzz")]
#[allow(clippy::disallowed_methods, reason = "paths of a scratch directory")]
#[allow(clippy::expect_used, reason = "a fuzz target panics on a fault")]
pub mod fuzz;
mod gc;
#[cfg(feature = "fault-injection")]
pub mod hooks;
#[cfg(not(feature = "fault-injection"))]
mod hooks;
mod layer;
mod oci;
mod parallel;
mod progress;
mod reference;
mod rootfs;
mod sbom;
mod store;
mod store_root;
mod sys;
mod tags;
mod tar;
mod transport;

pub use build::{Base, Built, Changes, Recipe, measure_image_digest, parse_command, parse_pair, parse_time};
pub use cas::Sink;
pub use check::{Checked, Described, DescribedLayer, ExtractedState};
pub use gc::Freed;
pub use invarlock_error::{Error, Kind, Result};
pub use layer::{LeftOut, MAX_LAYER_SIZE, Policy, SpecialFilePolicy, Totals};
pub use oci::{Consent, Digest, Layer};
pub use progress::{Progress, TransferProgress};
pub use reference::{Reference, RegistryName};
pub use rootfs::{ImageFile, Level, MergeOptions, RootfsOptions, VerifiedRootfs, Verify};
pub use store::Store;
pub use tags::ListedImage;
pub use transport::{Document, Imported, Opener, Pulled, Remote, ResolvedImage};
