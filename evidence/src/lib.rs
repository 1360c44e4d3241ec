//! Reports, manifests, gates and verification: everything that states or checks evidence.
//!
//! This crate is pure: it opens no socket, runs no program and follows no symbolic link. It builds without Linux.
//! It trusts nothing it is given: reports, manifests and windows come from machines and containers it does not know.
//!
//! The models ([`job`], [`events`], [`run_report`]) are light and always built; the verifier (`verify`) and
//! the HTML page (`html`) are features.
#![forbid(unsafe_code)]

pub mod compare;
pub mod events;
pub mod format;
pub mod gates;
#[cfg(feature = "html")]
pub mod html;
pub mod job;
pub mod json;
pub mod manifest;
pub mod numerics;
pub mod policy;
pub mod run_report;
#[cfg(feature = "verify")]
pub mod verify;

pub use invarlock_error::{Error, Kind, Result};
