//! The formats of evidence.

pub mod untrusted;
