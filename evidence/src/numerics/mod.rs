//! The arithmetic of a comparison, bit for bit as NumPy and CPython do it (`spec/math.md` sections 3 and 8).
//!
//! Nothing here reads a clock, a file or a source of randomness: the same numbers give the same result on every
//! machine, so that a verifier can repeat them.

pub mod bootstrap;
pub mod digest;
pub mod normal;
pub mod pcg64;
pub mod stats;
