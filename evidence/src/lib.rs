//! Reports, manifests, gates and verification: everything that writes or checks evidence.
//!
//! This crate is pure: it opens no socket, runs no program and follows no symbolic link. It builds without Linux.
//! Its input is untrusted: reports, manifests and windows come from other machines and from containers.
//!
//! The formats ([`mod@format`], [`job`], [`events`]) are light and always built; the verifier (`verify`), the HTML page (`html`) and
//! the other forms of a report (`export`) are features.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

#[cfg(feature = "signing")]
pub mod attestation;
pub mod beside;
#[cfg(feature = "export")]
pub mod calibration;
pub mod compare;
pub mod delegated;
pub mod evaluation;
pub mod events;
#[cfg(feature = "export")]
pub mod explain;
#[cfg(feature = "export")]
pub mod export;
pub mod format;
pub mod gates;
pub mod guards;
pub mod host_execution;
#[cfg(feature = "html")]
pub mod html;
pub mod job;
pub mod journal;
pub mod json;
pub mod manifest;
pub mod masking;
pub mod measured;
pub mod newer;
pub mod numerics;
#[cfg(feature = "signing")]
pub mod pack;
#[cfg(any(feature = "html", feature = "export"))]
mod paired;
#[cfg(feature = "signing")]
pub mod plan_lock;
pub mod policy;
#[cfg(feature = "verify")]
pub mod receipt;
pub mod sentences;
#[cfg(feature = "signing")]
pub mod signing;
#[cfg(feature = "export")]
pub mod sweep;
#[cfg(feature = "verify")]
pub mod verify;
#[cfg(any(feature = "html", feature = "export"))]
mod visible;
#[cfg(any(feature = "html", feature = "export"))]
pub mod window_texts;

pub use format::run_report;
pub use invarlock_error::{Error, Kind, Result};
