//! Signatures: Ed25519 keys ([`keys`]), signed envelopes ([`dsse`]) and statements ([`statement`]).
//!
//! A private key is read by the launcher only. Nothing here prints or records one.

pub mod dsse;
pub mod keys;
pub mod statement;
