//! The arithmetic of a comparison, bit for bit as NumPy and CPython compute it.
//!
//! This module reads no clock, file or source of randomness. The same numbers give the same result on every machine, so that a
//! verifier can recompute them.

pub mod bootstrap;
pub mod digest;
pub mod normal;
pub mod pcg64;
pub mod python_random;
pub mod stats;

/// Label of a token that is not predicted.
pub const NOT_PREDICTED: i64 = -100;
