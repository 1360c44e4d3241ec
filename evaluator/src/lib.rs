//! Measures one checkpoint on windows of text: the program inside the default image.
//!
//! The input is a [`Job`](invarlock_evidence::job::Job), the output a
//! [`RunReport`](invarlock_evidence::run_report::RunReport) ([`run`]). Checkpoints, tokenizers, datasets and windows are
//! untrusted: their sizes are bounded ([`limits`]), and only two small modules contain `unsafe` code ([`sys`],
//! [`math`](mod@math)).
//!
//! The same job gives identical numbers with any number of threads. Another processor may change the last digits,
//! because it may use another matrix kernel.

mod chat;
pub mod checkpoint;
pub mod dataset;
pub mod digests;
mod facts;
mod files;
pub mod guards;
mod journal;
pub mod limits;
pub mod math;
pub mod measure;
pub mod model;
pub mod progress;
mod report;
pub mod run;
pub mod selftest;
pub mod sys;
pub mod texts;
pub mod tokenizer;
mod weights;
pub mod windows;

pub use invarlock_error::{Error, Kind, Result};

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
