//! Registries that interrupt every transfer. Only attempts that gain a substantial part of a blob are free.
#![allow(clippy::print_stdout, reason = "a table")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Pulls a layer of 5 MiB from a registry that closes each connection after `piece` bytes. Returns the number of requests for the layer, and
/// whether the pull succeeds.
fn pull_interrupted(piece: usize, resumes: bool) -> (usize, bool) {
    let image = Image::new(5 * MIB, |_| {});
    let (served, count) = (image.clone(), AtomicUsize::new(0));
    let registry = TestRegistry::new(move |request, stream| {
        if !served.is_layer(request) {
            return served.serve(request, stream);
        }
        assert!(count.fetch_add(1, Ordering::Relaxed) < 100, "the storm has no end");
        let range = request.header("range").filter(|_| resumes);
        let from: usize = range.map_or(0, |range| range[6..range.len() - 1].parse().expect("range"));
        let rest = &served.layer_bytes()[from..];
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        let length = rest.len();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Range: bytes {from}-\r\nContent-Length: {length}\r\n\r\n");
        send_raw(stream, head.as_bytes());
        send_raw(stream, &rest[..piece.min(length)]);
    });
    let pulled = TestStore::new().pull_with(&registry.name(), short_options());
    let requests = registry.requests().iter().filter(|request| image.is_layer(request)).count();
    println!(
        "{piece} bytes per connection, resumes: {resumes}: {requests} requests: {:?}",
        pulled.as_ref().err()
    );
    (requests, pulled.is_ok())
}

#[test]
fn retries_without_substantial_gain_are_few() {
    assert_eq!(pull_interrupted(KIB, true), (2, false));
    assert_eq!(pull_interrupted(MIB - 1, true), (2, false));
    // The same bytes again are no gain.
    assert_eq!(pull_interrupted(2 * MIB, false), (3, false));
}

#[test]
fn retries_with_substantial_gain_are_free() {
    assert_eq!(pull_interrupted(MIB, true), (6, true));
}
