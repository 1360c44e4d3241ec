//! The smallest workload: it does nothing, so that a run measures the container alone.
#![forbid(unsafe_code)]

fn main() {}
