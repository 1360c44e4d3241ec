//! The smallest workload: what a container costs is what is left.
#![forbid(unsafe_code)]

fn main() {}
