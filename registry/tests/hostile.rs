//! Registries that stall, lie, lead elsewhere and ask for what is not theirs: each a clear error of the right kind, and the store as it was.
#![allow(clippy::print_stdout, reason = "a table")]

mod common;

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::*;
use invarlock_images::Digest;
use serde_json::json;

/// Pulls from a registry that answers as `handler`, which may leave the answer to an honest one.
#[track_caller]
fn refused(
    what: &str,
    expected: &str,
    word: &str,
    image: Image,
    handler: impl Fn(&Request, &mut TcpStream, &Image) -> bool + Send + Sync + 'static,
) -> (Server, Vec<String>) {
    let server = Server::new(move |request, stream| {
        if !handler(request, stream, &image) {
            image.serve(request, stream);
        }
    });
    let place = Place::new();
    let start = Instant::now();
    let error = place.pull(&server.name()).expect_err(what);
    println!("{what}: {}: {error}", kind(&error));
    assert_eq!(kind(&error), expected, "{what}: {error}");
    assert!(error.to_string().contains(word), "{what}: {error}");
    assert!(error.to_string().len() < 1500, "{what}: {error}");
    assert!(start.elapsed() < Duration::from_secs(20), "{what}");
    place.is_sound();
    assert_eq!(place.store.list().expect("list"), [], "{what}");
    let left: Vec<String> = place.left();
    let unfit = |name: &String| !name.ends_with(".part") && !name.chars().all(|c| c.is_ascii_hexdigit());
    assert!(!left.iter().any(unfit), "{what}: {left:?}");
    place.store.gc(false).expect("gc");
    assert_eq!(place.left(), Vec::<String>::new(), "{what}");
    (server, left)
}

#[test]
fn an_honest_one_is_believed_and_goes_on_where_it_stopped() {
    let image = honest();
    let cuts = AtomicUsize::new(0);
    let served = image.clone();
    // The layer's connection ends twice on the way.
    let server = Server::new(move |request, stream| {
        if served.is_layer(request) && cuts.fetch_add(1, Ordering::Relaxed) < 2 {
            let from: usize =
                request.header("range").map_or(0, |it| it[6..it.len() - 1].parse().expect("range"));
            let rest = &served.layer_bytes()[from..];
            let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Range: bytes {from}-\r\nContent-Length: {}\r\n\r\n",
                rest.len()
            );
            raw(stream, head.as_bytes());
            return raw(stream, &rest[..100_000]);
        }
        served.serve(request, stream);
    });
    let place = Place::new();
    let pulled = place.pull(&server.name()).expect("pull");
    assert_eq!(pulled.manifest_digest, Digest::of(&image.manifest));
    place.is_sound();
    let ranges: Vec<_> =
        server.seen().iter().filter_map(|it| it.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert!(ranges.iter().all(|it| it != "bytes=0-"), "{ranges:?}");
    // Another time nothing of it is asked for.
    let before = server.seen().len();
    place.pull(&server.name()).expect("again");
    assert!(!server.seen()[before..].iter().any(|it| image.is_layer(it)));
}

#[test]
fn what_came_before_is_gone_on_with_by_the_next_pull_or_thrown_away_where_it_is_not_the_blob() {
    for ignores_range in [false, true] {
        for altered in [false, true] {
            let image = honest();
            let served = image.clone();
            let server = Server::new(move |request, stream| {
                let mut request = request.clone();
                if ignores_range {
                    request.headers.remove("range");
                }
                served.serve(&request, stream);
            });
            let place = Place::new();
            let mut part = image.layer_bytes()[..200_000].to_vec();
            part[7] ^= u8::from(altered);
            let path = place.store.root().join(format!("blobs/sha256/{}.part", image.layer.hex()));
            std::fs::write(&path, part).expect("part");
            place.pull(&server.name()).expect("pull");
            place.is_sound();
            assert!(!path.exists());
            let asked: Vec<_> = server.seen().into_iter().filter(|it| image.is_layer(it)).collect();
            assert_eq!(asked[0].header("range"), Some("bytes=200000-"));
            assert_eq!(
                asked.len(),
                if altered && !ignores_range { 2 } else { 1 },
                "{altered} {ignores_range}"
            );
        }
    }
}

#[test]
fn a_stall_and_a_failure_that_pass() {
    let image = honest();
    let count = AtomicUsize::new(0);
    let served = image;
    let server = Server::new(move |request, stream| {
        let at = count.fetch_add(1, Ordering::Relaxed);
        match (request.path.contains("/manifests/"), at % 3) {
            (true, 0) => answer(stream, "429 Too Many Requests", &[("Retry-After", "1")], b""),
            (true, 1) => answer(stream, "503 Service Unavailable", &[], b"busy"),
            _ => served.serve(request, stream),
        }
    });
    let place = Place::new();
    // The first request looks how it is spoken to.
    let start = Instant::now();
    place.pull(&server.name()).expect("pull");
    let tries = server.seen().iter().filter(|it| it.path.contains("/manifests/")).count();
    assert!((2..=3).contains(&tries), "{tries}");
    assert!(tries < 3 || start.elapsed() >= Duration::from_secs(1), "it was asked to wait");
}

#[test]
fn lies_about_blobs() {
    let layer = |request: &Request, image: &Image| image.is_layer(request);
    refused("another blob", "integrity", "digest", honest(), move |r, s, i| {
        let lie = layer(r, i);
        if lie {
            let mut bytes = i.layer_bytes().to_vec();
            bytes[100_000] ^= 1;
            answer(s, "200 OK", &[], &bytes);
        }
        lie
    });
    refused("a longer blob", "integrity", "bytes", honest(), move |r, s, i| {
        let lie = layer(r, i);
        if lie {
            answer(s, "200 OK", &[], &[i.layer_bytes(), b"more"].concat());
        }
        lie
    });
    refused("a longer blob without a length", "integrity", "more than", honest(), move |r, s, i| {
        let lie = layer(r, i);
        if lie {
            raw(s, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            raw(s, &[i.layer_bytes(), b"more"].concat());
        }
        lie
    });
    refused("an endless blob", "integrity", "more than", honest(), move |r, s, i| {
        let lie = layer(r, i);
        if lie {
            raw(s, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            while std::io::Write::write_all(s, &[7; 65536]).is_ok() {}
        }
        lie
    });
    refused("a shorter blob", "integrity", "bytes", honest(), move |r, s, i| {
        let lie = layer(r, i);
        if lie {
            answer(s, "200 OK", &[], &i.layer_bytes()[..1000]);
        }
        lie
    });
    refused("a blob that ends early without a length", "integrity", "bytes", honest(), move |r, s, i| {
        let lie = layer(r, i);
        if lie {
            raw(s, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            raw(s, &i.layer_bytes()[..1000]);
        }
        lie
    });
    let (_, left) =
        refused("a blob that ends early again and again", "system", "tried", honest(), move |r, s, i| {
            let lie = layer(r, i);
            if lie {
                raw(
                    s,
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", i.layer_bytes().len())
                        .as_bytes(),
                );
            }
            lie
        });
    assert_eq!(left.iter().filter(|it| it.ends_with(".part")).count(), 0, "nothing came");
    refused("another part than was asked for", "integrity", "asked for", honest(), move |r, s, i| {
        let lie = layer(r, i);
        if lie && r.header("range").is_some() {
            answer(s, "206 Partial Content", &[("Content-Range", "bytes 5-9/10")], b"xxxxx");
        } else if lie {
            raw(
                s,
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", i.layer_bytes().len()).as_bytes(),
            );
            raw(s, &i.layer_bytes()[..1000]);
        }
        lie
    });
    refused("a missing blob", "input", "404", honest(), move |r, s, i| {
        let lie = layer(r, i);
        if lie {
            answer(s, "404 Not Found", &[], b"<html>");
        }
        lie
    });
    refused("a stall in a blob", "system", "no byte", honest(), move |r, s, i| {
        let lie = layer(r, i);
        if lie {
            raw(
                s,
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", i.layer_bytes().len()).as_bytes(),
            );
            std::thread::sleep(Duration::from_secs(3));
        }
        lie
    });
    let config = |r: &Request, i: &Image| r.path.contains("/blobs/") && !i.is_layer(r);
    refused("another configuration", "integrity", "digest", honest(), move |r, s, i| {
        let lie = config(r, i);
        if lie {
            let size =
                i.blobs.iter().find(|(name, _)| **name != i.layer.to_string()).expect("config").1.len();
            answer(s, "200 OK", &[], &vec![b' '; size]);
        }
        lie
    });
}

#[test]
fn lies_about_manifests() {
    let manifest = |r: &Request| r.path.contains("/manifests/");
    let instead = |status: &'static str, headers: &'static [(&'static str, &'static str)], body: Vec<u8>| {
        move |r: &Request, s: &mut TcpStream, _: &Image| {
            let lie = manifest(r);
            if lie {
                answer(s, status, headers, &body);
            }
            lie
        }
    };
    let typed: &[(&str, &str)] = &[("Content-Type", MANIFEST)];
    refused(
        "a huge manifest",
        "safety",
        "more than the 4194304",
        honest(),
        instead("200 OK", typed, vec![b' '; 5 << 20]),
    );
    refused("no JSON", "integrity", "none", honest(), instead("200 OK", typed, b"<html>".to_vec()));
    let schema1 = json!({"schemaVersion": 1, "name": "x", "fsLayers": []}).to_string().into_bytes();
    refused(
        "schema 1",
        "unsupported",
        "version 1",
        honest(),
        instead("200 OK", &[("Content-Type", "application/json")], schema1.clone()),
    );
    refused(
        "schema 1 by its type",
        "unsupported",
        "version 1",
        honest(),
        instead(
            "200 OK",
            &[("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")],
            schema1,
        ),
    );
    refused("two types", "integrity", "says it is", honest(), move |r, s, i| {
        let lie = manifest(r);
        if lie {
            answer(s, "200 OK", &[("Content-Type", INDEX)], &i.manifest);
        }
        lie
    });
    refused("another type", "unsupported", "text/html", honest(), move |r, s, i| {
        let lie = manifest(r);
        if lie {
            answer(s, "200 OK", &[("Content-Type", "text/html")], &i.manifest);
        }
        lie
    });
    refused("another digest than it says", "integrity", "and gives", honest(), move |r, s, i| {
        let lie = manifest(r);
        if lie {
            let other = Digest::of(b"other").to_string();
            answer(
                s,
                "200 OK",
                &[("Content-Type", MANIFEST), ("Docker-Content-Digest", &other)],
                &i.manifest,
            );
        }
        lie
    });
    refused(
        "manifests and layers",
        "safety",
        "two different things",
        Image::new(10, |it| it["manifests"] = json!([])),
        |_, _, _| false,
    );
    refused(
        "a huge configuration",
        "safety",
        "most for JSON",
        Image::new(10, |it| it["config"]["size"] = json!(5 << 20)),
        |_, _, _| false,
    );
    refused(
        "a wrong size of a layer",
        "integrity",
        "by the manifest",
        Image::new(10, |it| it["layers"][0]["size"] = json!(77)),
        |_, _, _| false,
    );
    refused(
        "an unknown packing",
        "unsupported",
        "media type",
        Image::new(10, |it| it["layers"][0]["mediaType"] = json!("x/y")),
        |_, _, _| false,
    );
    let foreign = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": Digest::of(b"x"), "size": 1, "platform": {"os": "linux", "architecture": "s390x"}}
    ]});
    refused(
        "only for other machines",
        "unsupported",
        "no image for linux",
        honest(),
        instead("200 OK", &[("Content-Type", INDEX)], foreign.to_string().into_bytes()),
    );
    refused("never", "system", "500", honest(), instead("500 Internal Server Error", &[], Vec::new()));
    refused("strange", "system", "418", honest(), instead("418 I'm a teapot", &[], Vec::new()));
    let text = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\u001b[2J\"}]}".as_bytes().to_vec();
    let (server, _) = refused("denied", "input", "DENIED no", honest(), instead("403 Forbidden", &[], text));
    let error = Place::new().pull(&server.name()).expect_err("denied").to_string();
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn answers_that_are_none() {
    let once = |bytes: Vec<u8>| {
        move |r: &Request, s: &mut TcpStream, _: &Image| {
            let lie = r.path.contains("/manifests/");
            if lie {
                raw(s, &bytes);
            }
            lie
        }
    };
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    refused("huge headers", "safety", "headers", honest(), once(huge.into_bytes()));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(5000));
    refused("many headers", "integrity", "not HTTP", honest(), once(many.into_bytes()));
    refused("no HTTP", "integrity", "not HTTP", honest(), once(b"SSH-2.0-x\r\n\r\n".to_vec()));
    refused("nothing", "system", "tried", honest(), once(Vec::new()));
    refused("a stall", "system", "no byte", honest(), |r, _, _| {
        let lie = r.path.contains("/manifests/");
        if lie {
            std::thread::sleep(Duration::from_secs(3));
        }
        lie
    });
}

#[test]
fn redirects() {
    let to = |location: &'static str| {
        move |r: &Request, s: &mut TcpStream, _: &Image| {
            let lie = r.path.contains("/manifests/") || r.path.contains("/round/");
            if lie {
                answer(s, "307 Temporary Redirect", &[("Location", location)], b"");
            }
            lie
        }
    };
    let (server, _) = refused("round and round", "safety", "more than 5 times", honest(), to("/round/"));
    assert_eq!(server.seen().iter().filter(|it| it.path.contains("/round/")).count(), 5);
    refused("nowhere", "integrity", "nowhere", honest(), |r, s, _| {
        let lie = r.path.contains("/manifests/");
        if lie {
            answer(s, "302 Found", &[], b"");
        }
        lie
    });
    refused("a file", "safety", "not HTTP", honest(), to("file:///etc/passwd"));
    refused(
        "a machine's own knowledge",
        "safety",
        "no registry elsewhere",
        honest(),
        to("https://169.254.169.254/latest/meta-data"),
    );
    refused("another host without TLS", "safety", "without TLS", honest(), to("http://192.0.2.1/x"));
    refused("a password in it", "safety", "more than a host", honest(), to("http://user:pw@127.0.0.1/x"));
    // A place for blobs, as many registries have.
    let image = honest();
    let served = image.clone();
    let elsewhere = Server::new(move |r, s| served.serve(r, s));
    let (host, first) = (elsewhere.host.clone(), image.clone());
    let server = Server::new(move |r, s| match r.path.contains("/blobs/") {
        true => {
            answer(s, "307 Temporary Redirect", &[("Location", &format!("http://{host}{}", r.path))], b"")
        }
        false => first.serve(r, s),
    });
    let place = Place::new();
    place.pull(&server.name()).expect("pull");
    place.is_sound();
    assert!(elsewhere.seen().iter().any(|it| image.is_layer(it)));
}
