//! A registry of ours on loopback that does as a test wants, and an image for it.
#![allow(dead_code, reason = "each test program uses a part")]

use invarlock_error::Kind;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use invarlock_images::{Digest, Error, Policy, Pulled, RegistryName, Store};
use invarlock_registry::{Client, Options};
use invarlock_security::{Allowances, Flags, Network, SecureTempDir};
use serde_json::{Value, json};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A request as it came.
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

/// It closes every connection after one answer.
pub struct Server {
    pub host: String,
    pub seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn new(handler: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("socket");
        let host = listener.local_addr().expect("address").to_string();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (handler, noted): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (handler, noted) = (Arc::clone(&handler), Arc::clone(&noted));
                std::thread::spawn(move || {
                    let mut stream = stream.expect("connection");
                    if let Some(request) = read(&mut stream) {
                        noted.lock().expect("seen").push(request.clone());
                        handler(&request, &mut stream);
                    }
                });
            }
        });
        Self { host, seen }
    }

    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("seen").clone()
    }

    pub fn name(&self) -> RegistryName {
        RegistryName::parse(&format!("docker://{}/team/it:1", self.host)).expect("name")
    }
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // Whoever tries whether this is TLS gets an answer at once.
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
    let length = headers.get("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

/// An answer with its length.
pub fn answer(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// An answer without one.
pub fn raw(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// An image: documents and blobs by the end of their path.
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
    /// One layer with a file of `size` bytes; `change` may lie in the manifest.
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
        let blobs = [layer, config].into_iter().map(|it| (Digest::of(&it).to_string(), it)).collect();
        let media_type = manifest["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
        Self { manifest: manifest.to_string().into_bytes(), media_type, blobs, layer: digest }
    }

    /// What an honest registry answers.
    pub fn serve(&self, request: &Request, stream: &mut TcpStream) {
        let last = request.path.rsplit('/').next().unwrap_or_default();
        if request.path == "/v2/" {
            return answer(stream, "200 OK", &[], b"{}");
        }
        if request.path.contains("/manifests/") {
            return answer(stream, "200 OK", &[("Content-Type", &self.media_type)], &self.manifest);
        }
        let Some(blob) = self.blobs.get(last) else {
            return answer(
                stream,
                "404 Not Found",
                &[],
                br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"gone"}]}"#,
            );
        };
        let from = request
            .header("range")
            .and_then(|it| it.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match from {
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                answer(stream, "206 Partial Content", &[("Content-Range", &range)], &blob[from..]);
            }
            None => answer(stream, "200 OK", &[], blob),
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

/// The kind of an error, for a table.
pub fn kind(error: &Error) -> &'static str {
    match error.kind() {
        Kind::Input => "input",
        Kind::Integrity => "integrity",
        Kind::Safety => "safety",
        Kind::Unsupported => "unsupported",
        _ => "system",
    }
}

/// An image, and nothing wrong with it.
pub fn honest() -> Image {
    Image::new(300_000, |_| {})
}

pub fn network() -> Network {
    let flags = Flags { network: true, ..Flags::default() };
    Allowances::resolve(&flags, &|_| None).network().expect("allowed")
}

pub fn options() -> Options {
    let mut options = Options::default();
    (options.stall, options.tries, options.pause) = (Duration::from_millis(400), 3, Duration::from_millis(1));
    options
}

pub struct Place {
    dir: SecureTempDir,
    pub store: Store,
}

impl Place {
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

    /// Names of blobs, trees and what else lies around.
    pub fn left(&self) -> Vec<String> {
        let names = |place: &str| {
            let entries = std::fs::read_dir(self.store.root().join(place)).expect("list");
            entries.map(|it| it.expect("entry").file_name().into_string().expect("name")).collect::<Vec<_>>()
        };
        let known = ["blobs", "trees", "index.json", "oci-layout", "empty"];
        let all = names("blobs/sha256").into_iter().chain(names("trees")).chain(names("."));
        all.filter(|it| !known.contains(&it.as_str())).collect()
    }

    pub fn is_sound(&self) {
        for checked in self.store.verify(None, false).expect("verify") {
            assert_eq!(checked.problem, None, "{}", checked.name);
        }
    }
}
