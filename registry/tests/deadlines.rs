//! Registries and token servers that send or receive slowly, in small pieces, or without end. Each pull ends soon. A registry that is slow but
//! steady is used.
#![allow(clippy::print_stdout, reason = "a table")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::*;
use invarlock_images::{Digest, RegistryName, Remote as _};
use invarlock_registry::Client;

const KIB: usize = 1 << 10;
/// The pause between two bytes, well below the time that a connection may stay silent.
const PAUSE: Duration = Duration::from_millis(50);

type Respond = fn(&Request, &mut TcpStream, &Image);

/// Sends `piece` again and again until the client closes the connection.
fn trickle(stream: &mut TcpStream, piece: &[u8], pause: Duration) {
    let start = Instant::now();
    while stream.write_all(piece).is_ok() && start.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(pause);
    }
}

fn send_chunked_head(stream: &mut TcpStream) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    send_raw(stream, head.as_bytes());
}

/// Sends the body as one chunk, and the start of the trailers.
fn send_chunk(stream: &mut TcpStream, body: &[u8]) {
    send_chunked_head(stream);
    send_raw(stream, &[format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n"].concat());
}

fn send_slowly(stream: &mut TcpStream, status: &str, length: usize) {
    send_raw(stream, format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").as_bytes());
    trickle(stream, b" ", PAUSE);
}

fn is_manifest(request: &Request, _: &Image) -> bool {
    request.path.contains("/manifests/")
}

fn is_layer(request: &Request, image: &Image) -> bool {
    image.is_layer(request)
}

/// A registry that responds with `respond` to the requests that match.
fn registry(matches: fn(&Request, &Image) -> bool, respond: Respond) -> TestRegistry {
    let image = valid_image();
    TestRegistry::new(move |request, stream| match matches(request, &image) {
        true => respond(request, stream, &image),
        false => image.serve(request, stream),
    })
}

/// Pulls with limits of seconds. The pull must fail soon, with an error of kind `expected` whose message contains `words`.
#[track_caller]
fn assert_fails_soon(case: &str, expected: &str, words: &str, name: &RegistryName) {
    let test_store = TestStore::new();
    let start = Instant::now();
    let error = test_store.pull_with(name, short_options()).expect_err(case);
    println!("{case}: {:.1} s: {}: {error}", start.elapsed().as_secs_f32(), kind_name(&error));
    assert_eq!(kind_name(&error), expected, "{case}: {error}");
    assert!(error.to_string().contains(words), "{case}: {error}");
    assert!(start.elapsed() < Duration::from_secs(8), "{case}: {:?}", start.elapsed());
    let is_slow = expected == "system" && words != "500";
    assert!(!is_slow || error.hint().is_some(), "{case}: a slow registry has a hint");
    test_store.assert_consistent();
}

#[test]
fn trickled_headers_have_a_deadline() {
    let respond: Respond = |_, stream, _| {
        send_raw(stream, b"HTTP/1.1 200 OK\r\nX: ");
        trickle(stream, b"x", PAUSE);
    };
    for (case, matches) in
        [("headers of a manifest", is_manifest as fn(&_, &_) -> _), ("of a layer", is_layer)]
    {
        assert_fails_soon(case, "system", "the headers of its response", &registry(matches, respond).name());
    }
}

#[test]
fn token_server_has_the_same_deadlines() {
    for (case, words, path) in
        [("token, headers", "headers", "/headers"), ("token, body", "sent only", "/body")]
    {
        let registry = TestRegistry::new(move |request, stream| match &*request.path {
            path if path.starts_with("/headers") => {
                send_raw(stream, b"HTTP/1.1 200 OK\r\nX: ");
                trickle(stream, b"x", PAUSE);
            }
            path if path.starts_with("/body") => send_slowly(stream, "200 OK", 5000),
            _ => {
                let challenge =
                    format!("Bearer realm=\"http://{}{path}\"", request.header("host").expect("host"));
                respond(stream, "401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"");
            }
        });
        assert_fails_soon(case, "system", words, &registry.name());
    }
}

#[test]
fn redirects_share_one_deadline() {
    // Each response takes 0.8 s, less than the deadline for headers.
    let registry = TestRegistry::new(|request, stream| {
        if request.path == "/v2/" {
            return respond(stream, "200 OK", &[], b"");
        }
        send_raw(stream, b"HTTP/1.1 307 Temporary Redirect\r\nConnection: close\r\nLocation: /v2/");
        for _ in 0..16 {
            send_raw(stream, b"x");
            std::thread::sleep(PAUSE);
        }
        send_raw(stream, b"\r\nContent-Length: 0\r\n\r\n");
    });
    assert_fails_soon("slow redirects", "system", "with its redirects within 2s", &registry.name());
}

#[test]
fn tls_handshake_has_a_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("socket");
    let name = format!("docker://{}/a:1", listener.local_addr().expect("address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.expect("connection");
                // The start of a record of 4 KiB.
                send_raw(&mut stream, &[0x16, 3, 3, 0x10, 0, 2, 0, 0x0f, 0xfc]);
                trickle(&mut stream, &[3], PAUSE);
            });
        }
    });
    assert_fails_soon(
        "handshake",
        "system",
        "did not answer within 1s",
        &RegistryName::parse(&name).expect("name"),
    );
}

#[test]
fn trickled_bodies_are_below_the_minimum_rate() {
    let manifest: Respond = |_, stream, _| send_slowly(stream, "200 OK", 5000);
    let layer: Respond = |_, stream, image| send_slowly(stream, "200 OK", image.layer_bytes().len());
    // The body of an error is only read for its message.
    let error: Respond = |_, stream, _| send_slowly(stream, "500 Internal Server Error", 5000);
    // 40 KiB/s, in large pieces.
    let below: Respond = |_, stream, image| {
        send_raw(
            stream,
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", image.layer_bytes().len()).as_bytes(),
        );
        trickle(stream, &[7; 4 * KIB], 2 * PAUSE);
    };
    assert_fails_soon(
        "manifest",
        "system",
        "at least 65536 are required",
        &registry(is_manifest, manifest).name(),
    );
    assert_fails_soon("layer", "system", "sent only", &registry(is_layer, layer).name());
    assert_fails_soon("error", "system", "500", &registry(is_manifest, error).name());
    assert_fails_soon("40 KiB/s", "system", "sent only", &registry(is_layer, below).name());
}

#[test]
fn framing_is_no_progress() {
    let extension: Respond = |_, stream, _| {
        send_chunked_head(stream);
        send_raw(stream, b"1;");
        trickle(stream, b"y", PAUSE);
    };
    let chunks: Respond = |_, stream, _| {
        send_chunked_head(stream);
        trickle(stream, b"1\r\nx\r\n", Duration::from_millis(1));
    };
    let trailers: Respond = |_, stream, image| {
        send_chunk(stream, &image.manifest);
        trickle(stream, b"X-T: y\r\n", PAUSE);
    };
    assert_fails_soon(
        "extension of a chunk",
        "system",
        "sent only 0 bytes",
        &registry(is_layer, extension).name(),
    );
    assert_fails_soon(
        "extension, manifest",
        "system",
        "sent only 0 bytes",
        &registry(is_manifest, extension).name(),
    );
    assert_fails_soon("slow small chunks", "system", "sent only", &registry(is_layer, chunks).name());
    assert_fails_soon(
        "trailers of a manifest",
        "system",
        "sent only",
        &registry(is_manifest, trailers).name(),
    );
}

#[test]
fn floods_of_framing_end_at_a_size() {
    let trailers: Respond = |_, stream, image| {
        send_chunk(stream, &image.manifest);
        trickle(stream, &b"X-T: yyyyyyyy\r\n".repeat(1000), Duration::ZERO);
    };
    let interim: Respond =
        |_, stream, _| trickle(stream, &b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000), Duration::ZERO);
    let chunks: Respond = |_, stream, image| {
        send_chunked_head(stream);
        let chunks = image.layer_bytes().iter().flat_map(|byte| [b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
        send_raw(stream, &chunks.collect::<Vec<u8>>());
    };
    let extension: Respond = |_, stream, _| {
        send_chunked_head(stream);
        send_raw(stream, b"1;");
        trickle(stream, &[b'y'; 10_000], Duration::ZERO);
    };
    assert_fails_soon("flood of trailers", "safety", "or trailers", &registry(is_manifest, trailers).name());
    assert_fails_soon(
        "flood of interim responses",
        "safety",
        "headers",
        &registry(is_manifest, interim).name(),
    );
    assert_fails_soon("chunks of one byte", "safety", "more framing", &registry(is_layer, chunks).name());
    assert_fails_soon("flood of an extension", "system", "", &registry(is_layer, extension).name());
}

#[test]
fn complete_layer_with_trickled_trailers_is_used_after_one_interval() {
    let respond: Respond = |_, stream, image| {
        send_chunk(stream, image.layer_bytes());
        trickle(stream, b"X-T: y\r\n", PAUSE);
    };
    let registry = registry(is_layer, respond);
    let start = Instant::now();
    TestStore::new().pull_with(&registry.name(), short_options()).expect("the layer is complete");
    assert!(start.elapsed() < 4 * INTERVAL, "{:?}", start.elapsed());
}

#[test]
fn slow_but_steady_registry_is_used() {
    let image = valid_image();
    let served = image.clone();
    // 100 KiB/s in chunks with extensions, and a trailer.
    let registry = TestRegistry::new(move |request, stream| {
        if !served.is_layer(request) {
            return served.serve(request, stream);
        }
        send_chunked_head(stream);
        for piece in served.layer_bytes().chunks(10 * KIB) {
            std::thread::sleep(Duration::from_millis(100));
            send_raw(stream, &[format!("{:x};a=b\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        }
        send_raw(stream, b"0\r\nX-T: y\r\n\r\n");
    });
    let start = Instant::now();
    let pulled = TestStore::new().pull_with(&registry.name(), short_options()).expect("pull");
    assert_eq!(pulled.manifest_digest, Digest::of(&image.manifest));
    assert!(start.elapsed() > 2 * INTERVAL, "the limits are shorter: {:?}", start.elapsed());
    assert_eq!(registry.requests().iter().filter(|request| image.is_layer(request)).count(), 1);
}

#[test]
fn slow_upload_has_a_deadline_by_its_size() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("socket");
    let name = format!("docker://{}/a:1", listener.local_addr().expect("address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let (mut stream, mut buffer) = (stream.expect("connection"), vec![0; 64 * KIB]);
                let read = stream.read(&mut buffer).unwrap_or(0);
                if buffer.starts_with(b"PUT ") {
                    // Some 1.3 MB/s.
                    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                        std::thread::sleep(PAUSE);
                    }
                } else if read > 0 {
                    respond(&mut stream, "202 Accepted", &[("Location", "/upload")], b"");
                }
            });
        }
    });
    let mut options = short_options();
    (options.plain_http, options.deadlines.rate.bytes) = (true, 64 << 20);
    let client = Client::new(network(), &RegistryName::parse(&name).expect("name"), options).expect("client");
    let size = 64 << 20;
    let start = Instant::now();
    let open = || Ok(Box::new(std::io::repeat(7).take(size)) as Box<dyn std::io::Read>);
    let error = client.put_blob(&Digest::of(b"x"), size, &open).expect_err("too slow");
    assert!(error.to_string().contains("received the upload slower than"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}
