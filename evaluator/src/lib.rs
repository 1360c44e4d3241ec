//! Measures one checkpoint on windows of text: the program inside the default image.
//!
//! A [`Job`](invarlock_evidence::job::Job) goes in, a [`RunReport`](invarlock_evidence::run_report::RunReport) comes
//! out ([`run`]). Checkpoints, tokenizers, datasets and windows are untrusted: everything is bounded ([`limits`]),
//! what is wrong is an [`Error`] with one clear message, and only two small modules are unsafe ([`sys`],
//! [`math`](mod@math)).
//!
//! The same job gives the same numbers whatever the number of threads; another kind of processor may change the last
//! digits, because matrix kernels differ.

pub mod checkpoint;
pub mod dataset;
pub mod digests;
mod files;
pub mod limits;
pub mod math;
pub mod measure;
pub mod model;
pub mod progress;
mod report;
pub mod run;
pub mod selftest;
pub mod sys;
pub mod tokenizer;
pub mod windows;

pub use invarlock_error::{Error, Kind, Result};

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
