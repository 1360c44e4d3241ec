//! Layers: extraction of untrusted archives, and creation of archives from directories.
//!
//! Every path is walked by directory handles and no link is ever followed.

pub(crate) mod create;
pub(crate) mod cursor;
pub(crate) mod entry;
pub(crate) mod extract;
pub(crate) mod inspect;
pub(crate) mod limits;
mod pipe;
pub(crate) mod xattr;

pub use create::LeftOut;
pub use entry::Totals;
pub use limits::{MAX_LAYER_SIZE, Policy, SpecialFilePolicy};
