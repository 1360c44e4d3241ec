//! The data model of OCI images: digests, descriptors, media types, manifests and the compression of layers.
//!
//! Documents come from untrusted sources. They are parsed with limits, and one that could be read as two kinds is refused.

pub(crate) mod compression;
mod consent;
pub(crate) mod descriptor;
pub(crate) mod digest;
pub(crate) mod json;
pub(crate) mod manifest;
pub(crate) mod media_type;

pub(crate) use compression::Compression;
pub use consent::Consent;
pub use digest::Digest;
pub(crate) use digest::Hashing;
pub use manifest::Layer;
