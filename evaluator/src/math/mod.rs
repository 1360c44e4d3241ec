//! Numerical kernels: matrix products, and the functions that a forward pass needs besides.
//!
//! Every function is single-threaded and gives identical bits for identical input on the same processor. All functions
//! but matrix products use no fused operations and therefore give identical bits on every processor.

pub mod activation;
pub mod amx;
pub mod elementary;
pub mod gemm;
pub mod norm;
pub mod products;
pub mod rotary;
pub mod simd;
pub mod softmax;
