//! Matrix products on the matrix unit of x86-64 processors (AMX), to nearly single precision.
//!
//! Each number becomes a sum of two bfloat16 numbers, `high + low`: the number rounded, and the rounded rest. The product of two numbers is
//! high·high + high·low + low·high, added in single precision. What is left out is low·low and the rest of each number after high and low: each at most 2^-16 of the product, as
//! rounding to the eight bits of bfloat16 leaves at most 2^-8 of a number. The root mean square of their sum is about 2^-18.
//!
//! Sums are added in the order of the common index, whatever the sizes of blocks are. So the bits depend on neither caches nor threads.

#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(not(target_arch = "x86_64"))]
mod missing;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod unit;

#[cfg(not(target_arch = "x86_64"))]
pub use missing::Amx;
#[cfg(target_arch = "x86_64")]
pub use unit::Amx;

/// Bound of the relative error of a product of two numbers: three terms of at most 2^-16 are left out.
#[cfg(test)]
const PRODUCT_ERROR: f64 = 3.0 / (1 << 16) as f64;

/// The name of the kernel in reports.
pub const KERNEL: &str = "amx-bf16x3";

/// What to do where the unit cannot be used.
const HINT: &str = "leave out --dtype bf16x3: losses are computed in float32 then";
