//! Images from and to registries: the OCI distribution protocol with a peer that nobody trusts.
//!
//! Responsible for: getting and sending bytes by the protocol, with the user's credentials going to whom they are for and nobody else.
//! Trusts: the machine's store of TLS roots, the user's credential files and programs, and of what a registry says nothing. The bytes it
//! gives are measured by `invarlock_images`, against digests. A [`Client`] is made only from [`invarlock_security::Network`], the right
//! to open internet sockets.
//!
//! In the order of a request: `resolver` (a name becomes addresses, without the C library, which is not in a static program), `address`
//! (which of them a stranger may send us to), `trust` (TLS roots), `http` (one request, redirects, bounds, time limits), `challenge`,
//! `credentials`, `helper` and `auth` (who we are), `retry`, and [`Client`], which speaks the protocol.
//!
//! # Rules
//!
//! - TLS, always; plain HTTP only to this machine itself, or where the user said so for the registry he named. Credentials never go over
//!   plain HTTP to another machine. This machine is `localhost`, a name below it or a loopback address, as it is written: a name that
//!   leads here by `/etc/hosts` or a name server is one like any other.
//! - Credentials go to the host they were stored for. A token server gets them where it is the same host or in the same domain.
//! - At most five redirects; none from TLS to plain HTTP, none from another machine to an address of this machine or its network; no
//!   credentials to another host or port.
//! - Every answer is bounded, and every wait: 10 s to connect, 30 s for the next byte.

#![forbid(unsafe_code)]

mod address;
mod auth;
mod challenge;
mod client;
mod credentials;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod helper;
mod http;
mod resolver;
mod retry;
mod trust;
mod upload;

pub use client::{Client, Options};
