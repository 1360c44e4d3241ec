//! The cache of extracted layers, and their verification before each use.
//!
//! An extracted layer is untrusted until it was compared with its record. The record is authenticated by the digest in its seal, which is
//! beside the extracted layer: a change goes undetected only if layer, record and seal are changed consistently, which requires the owner
//! of the store.

pub(crate) mod cache;
mod change_stamps;
mod fs_verity;
mod image;
mod image_file;
mod level;
mod merge;
mod partial;
pub(crate) mod record;
pub(crate) mod verify;

pub(crate) use cache::{ExtractedLayer, RootfsCache};
pub use image::{RootfsOptions, VerifiedRootfs};
pub use image_file::ImageFile;
pub use level::{Level, Verify};
pub use merge::MergeOptions;
