//! A registry on loopback whose responses the test chooses, and an image for it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use invarlock_error::Kind;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use invarlock_images::{Digest, Error, Policy, Pulled, RegistryName, Store};
use invarlock_registry::{Client, MinimumRate, Options};
use invarlock_security::{Allowances, Flags, Network, SecureTempDir};
use serde_json::{Value, json};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A received request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

type Handler = dyn Fn(&Request, &mut TcpStream) + Send + Sync;

/// A registry that closes every connection after one response.
pub struct TestRegistry {
    pub host: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl TestRegistry {
    pub fn new(handler: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("socket");
        let host = listener.local_addr().expect("address").to_string();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (handler, log): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                std::thread::spawn(move || {
                    let mut stream = stream.expect("connection");
                    if let Some(request) = read_request(&mut stream) {
                        log.lock().expect("log").push(request.clone());
                        handler(&request, &mut stream);
                    }
                });
            }
        });
        Self { host, requests }
    }

    /// A registry that serves `image`.
    pub fn serving(image: &Image) -> Self {
        let image = image.clone();
        Self::new(move |request, stream| image.serve(request, stream))
    }

    /// The requests received so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("log").clone()
    }

    /// Whether no request contained credentials.
    pub fn received_no_credentials(&self) -> bool {
        self.requests().iter().all(|request| request.header("authorization").is_none())
    }

    pub fn name(&self) -> RegistryName {
        RegistryName::parse(&format!("docker://{}/team/it:1", self.host)).expect("name")
    }
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // A TLS handshake gets a response at once.
        if stream.read(&mut byte).ok()? == 0 || head.is_empty() && byte[0] == 0x16 {
            let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
            return None;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers: BTreeMap<String, String> = lines.filter_map(header).collect();
    let length = headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

/// Sends a response with its length.
pub fn respond(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// Sends bytes as they are.
pub fn send_raw(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// An image: its manifest, and its blobs by digest.
#[derive(Clone)]
pub struct Image {
    pub manifest: Vec<u8>,
    pub media_type: String,
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub layer: Digest,
}

fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

impl Image {
    /// An image of one layer that has a file of `size` bytes. `change` may make the manifest wrong.
    pub fn new(size: usize, change: impl FnOnce(&mut Value)) -> Self {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        let content: Vec<u8> = (0..size).map(|i| (i * i % 251) as u8).collect();
        archive.append_data(&mut header, "file", &content[..]).expect("archive");
        let layer = archive.into_inner().expect("archive");
        let digest = Digest::of(&layer);
        let config = json!({"architecture": arch(), "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest]}})
            .to_string()
            .into_bytes();
        let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config), "layers": [descriptor(LAYER, &layer)],
        });
        change(&mut manifest);
        let blobs = [layer, config].into_iter().map(|blob| (Digest::of(&blob).to_string(), blob)).collect();
        let media_type = manifest["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
        Self { manifest: manifest.to_string().into_bytes(), media_type, blobs, layer: digest }
    }

    /// Responds to a request as a correct registry does.
    pub fn serve(&self, request: &Request, stream: &mut TcpStream) {
        let last = request.path.rsplit('/').next().unwrap_or_default();
        if request.path == "/v2/" {
            return respond(stream, "200 OK", &[], b"{}");
        }
        if request.path.contains("/manifests/") {
            return respond(stream, "200 OK", &[("Content-Type", &self.media_type)], &self.manifest);
        }
        let Some(blob) = self.blobs.get(last) else {
            return respond(
                stream,
                "404 Not Found",
                &[],
                br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"gone"}]}"#,
            );
        };
        let from = request
            .header("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match from {
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                respond(stream, "206 Partial Content", &[("Content-Range", &range)], &blob[from..]);
            }
            None => respond(stream, "200 OK", &[], blob),
        }
    }

    /// Whether a request is for the layer.
    pub fn is_layer(&self, request: &Request) -> bool {
        request.path.ends_with(&format!("/blobs/{}", self.layer))
    }

    pub fn layer_bytes(&self) -> &[u8] {
        &self.blobs[&self.layer.to_string()]
    }
}

/// The name of an error's kind, for tables.
pub fn kind_name(error: &Error) -> &'static str {
    match error.kind() {
        Kind::Input => "input",
        Kind::Integrity => "integrity",
        Kind::Safety => "safety",
        Kind::Unsupported => "unsupported",
        _ => "system",
    }
}

/// An image with a correct manifest.
pub fn valid_image() -> Image {
    Image::new(300_000, |_| {})
}

pub fn network() -> Network {
    let flags = Flags { network: true, ..Flags::default() };
    Allowances::resolve(&flags, &|_| None).network().expect("allowed")
}

pub fn options() -> Options {
    let mut options = Options::default();
    (options.deadlines.silence, options.attempts, options.first_pause) =
        (Duration::from_millis(400), 3, Duration::from_millis(1));
    options
}

/// The unit of [`short_options`].
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Options with deadlines of seconds. Bodies must have at least 64 KiB/s.
pub fn short_options() -> Options {
    let mut options = options();
    options.attempts = 2;
    let deadlines = &mut options.deadlines;
    (deadlines.connect, deadlines.headers, deadlines.exchange) = (INTERVAL, INTERVAL, 2 * INTERVAL);
    deadlines.rate = MinimumRate { bytes: 64 << 10, interval: INTERVAL };
    options
}

/// A store in a temporary directory.
pub struct TestStore {
    dir: SecureTempDir,
    pub store: Store,
}

impl TestStore {
    pub fn new() -> Self {
        let dir = SecureTempDir::new("invarlock-registry-").expect("directory");
        let store = Store::open(&dir.path().join("store")).expect("store");
        Self { dir, store }
    }

    pub fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub fn pull(&self, name: &RegistryName) -> Result<Pulled, Error> {
        self.pull_with(name, options())
    }

    pub fn pull_with(&self, name: &RegistryName, options: Options) -> Result<Pulled, Error> {
        let client = Client::new(network(), name, options)?;
        self.store.pull(name, &client, None, Some(Policy::default()), &|_, _| {})
    }

    /// The names of blobs, extracted layers and temporary files in the store.
    pub fn objects(&self) -> Vec<String> {
        let names = |dir: &str| {
            let entries = std::fs::read_dir(self.store.root().join(dir)).expect("list");
            entries
                .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
                .collect::<Vec<_>>()
        };
        let always = ["blobs", "trees", "index.json", "oci-layout", "empty"];
        let all = names("blobs/sha256").into_iter().chain(names("trees")).chain(names("."));
        all.filter(|name| !always.contains(&name.as_str())).collect()
    }

    pub fn assert_consistent(&self) {
        for checked in self.store.verify(None, false).expect("verify") {
            assert_eq!(checked.problem, None, "{}", checked.name);
        }
    }
}
