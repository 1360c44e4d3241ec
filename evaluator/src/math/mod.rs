//! Numerical kernels: matrix products, and the few functions around them that a forward pass needs.
//!
//! Everything here is single-threaded and gives the same bits for the same input and the same processor. The
//! functions other than products use no fused operation, so they give the same bits on every processor.

pub mod activation;
pub mod elementary;
pub mod gemm;
pub mod norm;
pub mod rotary;
pub mod simd;
pub mod softmax;
