//! A client of the OCI distribution protocol: pulls images from registries and pushes them.
//!
//! Responsible for transferring bytes and for sending the user's credentials only to the host they were issued for. Trusts the machine's
//! TLS roots and the user's credential files and helpers. Registry responses are untrusted; `invarlock_images` verifies every blob by
//! digest. A [`Client`] is created only from [`invarlock_security::Network`], the permission to open internet sockets.
//!
//! Modules, each using only those before it: `limits`, `deadline` (limits of the I/O in progress), `url`, `address`, `dns`, `names` (host
//! names to addresses), `guarded_resolver` (which addresses the client may connect to), `trust` (TLS roots), `retry`, `transport_error`,
//! `body` (reads a response at the minimum rate), `http` (one request with its redirects, bounds and time limits), `status`, `challenge`,
//! `credential`, `credential_helper`, `credentials`, `auth` and [`Client`].
//!
//! # Rules
//!
//! - TLS is required, except for this machine and for a registry for which the user requested plain HTTP. Credentials are never sent over
//!   plain HTTP to another machine. This machine is `localhost`, a name below it or a loopback address, as written: a name that resolves
//!   to a loopback address is treated as another machine.
//! - Credentials are sent to the host they were stored for. A token server gets them if it is the same host or in the same domain.
//! - At most five redirects are followed; none from TLS to plain HTTP, and none from another machine to an address of this machine or its
//!   network. Credentials are not sent to another host or port.
//! - Every part of an exchange has a deadline, and a body has a minimum rate ([`Deadlines`]). Only payload counts. A failed request is
//!   repeated a few times, and for free only if it gained a substantial part of a blob.

#![forbid(unsafe_code)]

mod address;
mod auth;
mod body;
mod challenge;
mod client;
mod credential;
mod credential_helper;
mod credentials;
mod deadline;
mod dns;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod guarded_resolver;
mod http;
mod limits;
mod names;
mod retry;
mod status;
mod transport_error;
mod trust;
mod url;

pub use client::{Client, Options};
pub use limits::{Deadlines, MinimumRate};
