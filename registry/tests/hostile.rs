//! Registries that stall, send wrong data, redirect elsewhere or send malformed responses. Each pull fails with an error of the right kind
//! and leaves the store unchanged.
#![allow(clippy::print_stdout, reason = "a table")]

mod common;

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::*;
use invarlock_images::Digest;
use serde_json::json;

/// A test's response to a request; whether it responded.
type Handler = Box<dyn Fn(&Request, &mut TcpStream, &Image) -> bool + Send + Sync>;

/// Makes a manifest wrong.
type ManifestChange = fn(&mut serde_json::Value);

/// Responds to the requests that match.
fn when(
    matches: impl Fn(&Request, &Image) -> bool + Send + Sync + 'static,
    respond: impl Fn(&Request, &mut TcpStream, &Image) + Send + Sync + 'static,
) -> Handler {
    Box::new(move |request, stream, image| {
        let matched = matches(request, image);
        if matched {
            respond(request, stream, image);
        }
        matched
    })
}

fn for_layer(respond: impl Fn(&Request, &mut TcpStream, &Image) + Send + Sync + 'static) -> Handler {
    when(|request, image| image.is_layer(request), respond)
}

fn for_manifest(respond: impl Fn(&Request, &mut TcpStream, &Image) + Send + Sync + 'static) -> Handler {
    when(|request, _| request.path.contains("/manifests/"), respond)
}

/// A fixed response to the request for the manifest.
fn manifest_response(
    status: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: impl Into<Vec<u8>>,
) -> Handler {
    let body = body.into();
    for_manifest(move |_, stream, _| respond(stream, status, headers, &body))
}

/// Sends the headers of a response whose end is the end of the connection.
fn send_head_without_length(stream: &mut TcpStream) {
    send_raw(stream, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
}

/// Sends headers that announce `length` bytes.
fn send_head_with_length(stream: &mut TcpStream, length: usize) {
    send_raw(stream, format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes());
}

/// Pulls `image` from a registry that responds with `handler`, or correctly where that does not respond. The pull must fail with an error
/// of kind `expected` whose message contains `words`. Returns the registry and the objects that the failed pull left in the store.
#[track_caller]
fn assert_pull_fails(
    case: &str,
    expected: &str,
    words: &str,
    image: Image,
    handler: Handler,
) -> (TestRegistry, Vec<String>) {
    let registry = TestRegistry::new(move |request, stream| {
        if !handler(request, stream, &image) {
            image.serve(request, stream);
        }
    });
    let test_store = TestStore::new();
    let start = Instant::now();
    let error = test_store.pull(&registry.name()).expect_err(case);
    println!("{case}: {}: {error}", kind_name(&error));
    assert_eq!(kind_name(&error), expected, "{case}: {error}");
    assert!(error.to_string().contains(words), "{case}: {error}");
    assert!(error.to_string().len() < 1500, "{case}: {error}");
    assert!(start.elapsed() < Duration::from_secs(20), "{case}");
    test_store.assert_consistent();
    assert_eq!(test_store.store.list().expect("list"), [], "{case}");
    let left = test_store.objects();
    let is_expected = |name: &String| name.ends_with(".part") || name.chars().all(|c| c.is_ascii_hexdigit());
    assert!(left.iter().all(is_expected), "{case}: {left:?}");
    test_store.store.gc(false).expect("gc");
    assert_eq!(test_store.objects(), Vec::<String>::new(), "{case}");
    (registry, left)
}

#[test]
fn interrupted_blob_is_resumed_in_the_same_pull() {
    let image = valid_image();
    let interruptions = AtomicUsize::new(0);
    let served = image.clone();
    // The connection for the layer closes twice before the end.
    let registry = TestRegistry::new(move |request, stream| {
        if !served.is_layer(request) || interruptions.fetch_add(1, Ordering::Relaxed) >= 2 {
            return served.serve(request, stream);
        }
        let from: usize =
            request.header("range").map_or(0, |range| range[6..range.len() - 1].parse().expect("range"));
        let rest = &served.layer_bytes()[from..];
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        let length = rest.len();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Range: bytes {from}-\r\nContent-Length: {length}\r\n\r\n");
        send_raw(stream, head.as_bytes());
        send_raw(stream, &rest[..100_000]);
    });
    let test_store = TestStore::new();
    let pulled = test_store.pull(&registry.name()).expect("pull");
    assert_eq!(pulled.manifest_digest, Digest::of(&image.manifest));
    test_store.assert_consistent();
    let requests = registry.requests();
    let ranges: Vec<_> = requests.iter().filter_map(|request| request.header("range")).collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert!(ranges.iter().all(|range| *range != "bytes=0-"), "{ranges:?}");
    // A second pull does not request the layer again.
    test_store.pull(&registry.name()).expect("second pull");
    assert!(!registry.requests()[requests.len()..].iter().any(|request| image.is_layer(request)));
}

#[test]
fn partial_blob_is_resumed_by_the_next_pull_or_replaced_if_altered() {
    for ignores_range in [false, true] {
        for altered in [false, true] {
            let image = valid_image();
            let served = image.clone();
            let registry = TestRegistry::new(move |request, stream| {
                let mut request = request.clone();
                if ignores_range {
                    request.headers.remove("range");
                }
                served.serve(&request, stream);
            });
            let test_store = TestStore::new();
            let mut part = image.layer_bytes()[..200_000].to_vec();
            part[7] ^= u8::from(altered);
            let path = test_store.store.root().join(format!("blobs/sha256/{}.part", image.layer.hex()));
            std::fs::write(&path, part).expect("part");
            test_store.pull(&registry.name()).expect("pull");
            test_store.assert_consistent();
            assert!(!path.exists());
            let requests: Vec<_> =
                registry.requests().into_iter().filter(|request| image.is_layer(request)).collect();
            assert_eq!(requests[0].header("range"), Some("bytes=200000-"));
            let expected = if altered && !ignores_range { 2 } else { 1 };
            assert_eq!(requests.len(), expected, "altered: {altered}, ignores range: {ignores_range}");
        }
    }
}

#[test]
fn busy_registry_is_retried_after_the_requested_pause() {
    let image = valid_image();
    let count = AtomicUsize::new(0);
    let registry = TestRegistry::new(move |request, stream| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        match (request.path.contains("/manifests/"), number % 3) {
            (true, 0) => respond(stream, "429 Too Many Requests", &[("Retry-After", "1")], b""),
            (true, 1) => respond(stream, "503 Service Unavailable", &[], b"busy"),
            _ => image.serve(request, stream),
        }
    });
    let start = Instant::now();
    TestStore::new().pull(&registry.name()).expect("pull");
    let requests = registry.requests();
    let attempts = requests.iter().filter(|request| request.path.contains("/manifests/")).count();
    // The number of the first request for the manifest depends on the probe for TLS.
    assert!((2..=3).contains(&attempts), "{attempts}");
    assert!(attempts < 3 || start.elapsed() >= Duration::from_secs(1), "Retry-After is honoured");
}

#[test]
fn rejects_blobs_with_wrong_content_or_length() {
    let cases: [(&str, &str, &str, Handler); 7] = [
        (
            "other content",
            "integrity",
            "digest",
            for_layer(|_, stream, image| {
                let mut bytes = image.layer_bytes().to_vec();
                bytes[100_000] ^= 1;
                respond(stream, "200 OK", &[], &bytes);
            }),
        ),
        (
            "longer blob",
            "integrity",
            "bytes",
            for_layer(|_, stream, image| {
                respond(stream, "200 OK", &[], &[image.layer_bytes(), b"more"].concat());
            }),
        ),
        (
            "longer blob without a length",
            "integrity",
            "",
            for_layer(|_, stream, image| {
                send_head_without_length(stream);
                send_raw(stream, &[image.layer_bytes(), b"more"].concat());
            }),
        ),
        (
            "endless blob",
            "integrity",
            "",
            for_layer(|_, stream, _| {
                send_head_without_length(stream);
                while std::io::Write::write_all(stream, &[7; 65536]).is_ok() {}
            }),
        ),
        (
            "shorter blob",
            "integrity",
            "bytes",
            for_layer(|_, stream, image| respond(stream, "200 OK", &[], &image.layer_bytes()[..1000])),
        ),
        (
            "shorter blob without a length",
            "integrity",
            "bytes",
            for_layer(|_, stream, image| {
                send_head_without_length(stream);
                send_raw(stream, &image.layer_bytes()[..1000]);
            }),
        ),
        (
            "other configuration",
            "integrity",
            "digest",
            when(
                |request, image| request.path.contains("/blobs/") && !image.is_layer(request),
                |_, stream, image| {
                    let layer = image.layer.to_string();
                    let config = image.blobs.iter().find(|(name, _)| **name != layer).expect("config").1;
                    respond(stream, "200 OK", &[], &vec![b' '; config.len()]);
                },
            ),
        ),
    ];
    for (case, kind, words, handler) in cases {
        assert_pull_fails(case, kind, words, valid_image(), handler);
    }
}

#[test]
fn rejects_interrupted_missing_and_stalled_blobs() {
    let handler = for_layer(|_, stream, image| send_head_with_length(stream, image.layer_bytes().len()));
    let (_, left) = assert_pull_fails("always interrupted", "system", "attempts", valid_image(), handler);
    assert!(!left.iter().any(|name| name.ends_with(".part")), "no byte was received: {left:?}");
    let handler = for_layer(|request, stream, image| {
        if request.header("range").is_some() {
            return respond(stream, "206 Partial Content", &[("Content-Range", "bytes 5-9/10")], b"xxxxx");
        }
        send_head_with_length(stream, image.layer_bytes().len());
        send_raw(stream, &image.layer_bytes()[..1000]);
    });
    assert_pull_fails("other range than requested", "integrity", "requested", valid_image(), handler);
    let handler = for_layer(|_, stream, _| respond(stream, "404 Not Found", &[], b"<html>"));
    assert_pull_fails("missing blob", "input", "404", valid_image(), handler);
    let handler = for_layer(|_, stream, image| {
        send_head_with_length(stream, image.layer_bytes().len());
        std::thread::sleep(Duration::from_secs(3));
    });
    assert_pull_fails("stalled blob", "system", "no byte", valid_image(), handler);
}

#[test]
fn rejects_invalid_manifest_documents() {
    let schema1 = || json!({"schemaVersion": 1, "name": "x", "fsLayers": []}).to_string();
    let oci: &[(&str, &str)] = &[("Content-Type", MANIFEST)];
    let generic: &[(&str, &str)] = &[("Content-Type", "application/json")];
    let docker: &[(&str, &str)] =
        &[("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")];
    let index: &[(&str, &str)] = &[("Content-Type", INDEX)];
    let foreign = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": Digest::of(b"x"), "size": 1, "platform": {"os": "linux", "architecture": "s390x"}}
    ]});
    let cases: [(&str, &str, &str, Handler); 8] = [
        (
            "manifest of 5 MiB",
            "safety",
            "more than the allowed 4194304",
            manifest_response("200 OK", oci, vec![b' '; 5 << 20]),
        ),
        ("not JSON", "integrity", "invalid manifest", manifest_response("200 OK", oci, "<html>")),
        ("schema 1", "unsupported", "version 1", manifest_response("200 OK", generic, schema1())),
        (
            "schema 1 by media type",
            "unsupported",
            "version 1",
            manifest_response("200 OK", docker, schema1()),
        ),
        (
            "contradicting media types",
            "integrity",
            "whose mediaType is",
            for_manifest(|_, stream, image| {
                respond(stream, "200 OK", &[("Content-Type", INDEX)], &image.manifest);
            }),
        ),
        (
            "unknown media type",
            "unsupported",
            "text/html",
            for_manifest(|_, stream, image| {
                respond(stream, "200 OK", &[("Content-Type", "text/html")], &image.manifest);
            }),
        ),
        (
            "wrong Docker-Content-Digest",
            "integrity",
            "but sends",
            for_manifest(|_, stream, image| {
                let other = Digest::of(b"other").to_string();
                let headers = [("Content-Type", MANIFEST), ("Docker-Content-Digest", &*other)];
                respond(stream, "200 OK", &headers, &image.manifest);
            }),
        ),
        (
            "index without this platform",
            "unsupported",
            "linux",
            manifest_response("200 OK", index, foreign.to_string()),
        ),
    ];
    for (case, kind, words, handler) in cases {
        assert_pull_fails(case, kind, words, valid_image(), handler);
    }
}

#[test]
fn rejects_manifests_with_wrong_content() {
    let cases: [(&str, &str, &str, ManifestChange); 4] = [
        ("layers and manifests", "safety", "", |manifest| manifest["manifests"] = json!([])),
        ("configuration of 5 MiB", "safety", "", |manifest| manifest["config"]["size"] = json!(5 << 20)),
        ("wrong size of a layer", "integrity", "the manifest requires", |manifest| {
            manifest["layers"][0]["size"] = json!(77);
        }),
        ("unknown compression", "unsupported", "media type", |manifest| {
            manifest["layers"][0]["mediaType"] = json!("x/y");
        }),
    ];
    for (case, kind, words, change) in cases {
        assert_pull_fails(case, kind, words, Image::new(10, change), Box::new(|_, _, _| false));
    }
}

#[test]
fn error_responses_have_the_kind_of_their_status() {
    let internal = manifest_response("500 Internal Server Error", &[], "");
    assert_pull_fails("permanent 500", "system", "500", valid_image(), internal);
    let teapot = manifest_response("418 I'm a teapot", &[], "");
    assert_pull_fails("unknown status", "system", "418", valid_image(), teapot);
    let denied = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\u001b[2J\"}]}";
    let denied = manifest_response("403 Forbidden", &[], denied);
    let (registry, _) = assert_pull_fails("denied", "input", "DENIED no", valid_image(), denied);
    let error = TestStore::new().pull(&registry.name()).expect_err("denied").to_string();
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn rejects_malformed_and_missing_http_responses() {
    let raw = |bytes: String| for_manifest(move |_, stream, _| send_raw(stream, bytes.as_bytes()));
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(5000));
    let cases: [(&str, &str, &str, Handler); 5] = [
        ("large headers", "safety", "headers", raw(large)),
        ("many headers", "integrity", "not valid HTTP", raw(many)),
        ("not HTTP", "integrity", "not valid HTTP", raw("SSH-2.0-x\r\n\r\n".to_owned())),
        ("no response", "system", "attempts", raw(String::new())),
        (
            "stalled response",
            "system",
            "no byte",
            for_manifest(|_, _, _| std::thread::sleep(Duration::from_secs(3))),
        ),
    ];
    for (case, kind, words, handler) in cases {
        assert_pull_fails(case, kind, words, valid_image(), handler);
    }
}

#[test]
fn rejects_redirects_to_forbidden_locations() {
    let to = |location: &'static str| {
        when(
            |request, _| request.path.contains("/manifests/") || request.path.contains("/loop/"),
            move |_, stream, _| respond(stream, "307 Temporary Redirect", &[("Location", location)], b""),
        )
    };
    let (registry, _) =
        assert_pull_fails("redirect loop", "safety", "more than 5 times", valid_image(), to("/loop/"));
    let followed = registry.requests().iter().filter(|request| request.path.contains("/loop/")).count();
    assert_eq!(followed, 5);
    let cases: [(&str, &str, &str, Handler); 5] = [
        (
            "without a location",
            "integrity",
            "without a location",
            for_manifest(|_, stream, _| respond(stream, "302 Found", &[], b"")),
        ),
        ("to a file", "safety", "not HTTP", to("file:///etc/passwd")),
        (
            "to a cloud metadata service",
            "safety",
            "a registry elsewhere",
            to("https://169.254.169.254/latest/meta-data"),
        ),
        ("to another host without TLS", "safety", "without TLS", to("http://192.0.2.1/x")),
        ("with a password", "safety", "contains credentials", to("http://user:pw@127.0.0.1/x")),
    ];
    for (case, kind, words, handler) in cases {
        assert_pull_fails(case, kind, words, valid_image(), handler);
    }
}

#[test]
fn blobs_may_be_redirected_to_another_host() {
    let image = valid_image();
    let elsewhere = TestRegistry::serving(&image);
    let (host, first) = (elsewhere.host.clone(), image.clone());
    let registry = TestRegistry::new(move |request, stream| {
        if !request.path.contains("/blobs/") {
            return first.serve(request, stream);
        }
        let location = format!("http://{host}{}", request.path);
        respond(stream, "307 Temporary Redirect", &[("Location", &location)], b"");
    });
    let test_store = TestStore::new();
    test_store.pull(&registry.name()).expect("pull");
    test_store.assert_consistent();
    assert!(elsewhere.requests().iter().any(|request| image.is_layer(request)));
}
