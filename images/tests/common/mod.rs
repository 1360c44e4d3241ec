//! Helpers of the tests: layouts and archives in any form, a registry in a directory, and processes of their own.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tables, and skipped tests")]

use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use invarlock_images::{
    Digest, Document, Error, Opener, Reference, Remote, Result, RootfsOptions, Sink, Store, VerifiedRootfs,
};
use invarlock_security::SecureTempDir;
use serde_json::{Value, json};

pub const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

pub fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Message and hint of an error.
pub fn message_and_hint(error: &Error) -> String {
    format!("{error}; {}", error.hint().unwrap_or_default())
}

/// The combined output of a finished process.
pub fn output_text(output: &std::process::Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// Whether every object of the store is correct.
pub fn is_consistent(store: &Store) -> bool {
    store.verify(None, false).expect("verify").iter().all(|checked| checked.problem.is_none())
}

pub fn scratch() -> SecureTempDir {
    SecureTempDir::new("invarlock-images-").expect("scratch")
}

/// An OCI layout under construction.
pub struct TestLayout {
    pub dir: PathBuf,
}

impl TestLayout {
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir.join("blobs/sha256")).expect("layout");
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("layout");
        Self { dir: dir.to_owned() }
    }

    pub fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        std::fs::write(self.dir.join("blobs/sha256").join(digest.hex()), bytes).expect("blob");
        digest
    }

    /// Stores a document and returns its descriptor.
    pub fn json(&self, media_type: &str, value: &Value) -> Value {
        let bytes = serde_json::to_vec(value).expect("json");
        json!({"mediaType": media_type, "digest": self.blob(&bytes), "size": bytes.len()})
    }

    pub fn config(&self, diff_ids: &[Digest]) -> Value {
        self.json(CONFIG, &json!({"architecture": arch(), "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}))
    }

    /// An image of layers, each `(media type, blob, archive)`.
    pub fn image(&self, layers: &[(&str, Vec<u8>, Vec<u8>)]) -> Value {
        let ids: Vec<Digest> = layers.iter().map(|(_, _, archive)| Digest::of(archive)).collect();
        let blobs: Vec<Value> = layers
            .iter()
            .map(|(kind, blob, _)| json!({"mediaType": kind, "digest": self.blob(blob), "size": blob.len()}))
            .collect();
        self.json(
            MANIFEST,
            &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": self.config(&ids), "layers": blobs}),
        )
    }

    /// An image of one uncompressed layer. The file is moved into the layout and never read into memory.
    pub fn image_of_file(&self, archive: &Path) -> Value {
        let output = std::process::Command::new("sha256sum").arg(archive).output().expect("sha256sum");
        let hex = String::from_utf8(output.stdout).expect("text")[..64].to_owned();
        let size = std::fs::metadata(archive).expect("archive").len();
        std::fs::rename(archive, self.dir.join("blobs/sha256").join(&hex)).expect("move");
        let digest = Digest::parse(&format!("sha256:{hex}")).expect("digest");
        let layer = json!({"mediaType": TAR, "digest": digest, "size": size});
        let config = self.config(&[digest]);
        self.json(
            MANIFEST,
            &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}),
        )
    }

    pub fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        std::fs::write(self.dir.join("index.json"), index.to_string()).expect("index");
    }

    pub fn reference(&self) -> Reference {
        reference(&format!("oci:{}", self.dir.display()))
    }
}

/// A registry whose content is a layout in a directory. It sends blobs in small chunks.
pub struct DirectoryRegistry(pub PathBuf);

impl DirectoryRegistry {
    fn bytes(&self, digest: &str) -> Result<Vec<u8>> {
        let path = self.0.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        std::fs::read(path).map_err(|error| Error::input(error.to_string()))
    }
}

impl Remote for DirectoryRegistry {
    fn manifest(&self, tag_or_digest: &str, _: u64) -> Result<Document> {
        let index: Value =
            serde_json::from_slice(&std::fs::read(self.0.join("index.json")).expect("index")).expect("index");
        let root = &index["manifests"][0];
        let digest = match tag_or_digest.starts_with("sha256:") {
            true => tag_or_digest,
            false => root["digest"].as_str().expect("digest"),
        };
        let bytes = self.bytes(digest)?;
        let value: Value = serde_json::from_slice(&bytes).expect("manifest");
        Ok(Document { media_type: value["mediaType"].as_str().expect("type").to_owned(), bytes })
    }

    fn blob(&self, digest: &Digest, _: u64, to: &mut dyn Sink) -> Result<()> {
        let bytes = self.bytes(&digest.to_string())?;
        let have = usize::try_from(to.have()).expect("size");
        bytes[have..].chunks(bytes.len() / 3 + 1).try_for_each(|chunk| to.take(chunk))
    }

    fn has_blob(&self, digest: &Digest, _: u64) -> Result<bool> {
        Ok(self.bytes(&digest.to_string()).is_ok())
    }

    fn put_blob(&self, digest: &Digest, size: u64, open: Opener<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        open()?.read_to_end(&mut bytes)?;
        assert_eq!((bytes.len() as u64, Digest::of(&bytes)), (size, *digest));
        TestLayout { dir: self.0.clone() }.blob(&bytes);
        Ok(())
    }

    fn put_manifest(&self, tag: &str, document: &Document) -> Result<()> {
        let layout = TestLayout { dir: self.0.clone() };
        let digest = layout.blob(&document.bytes);
        layout.index(&[json!({
            "mediaType": document.media_type, "digest": digest, "size": document.bytes.len(),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        })]);
        Ok(())
    }
}

/// Extracts one uncompressed layer in a new store below `dir`.
pub fn extract(dir: &Path, archive: &[u8]) -> Result<VerifiedRootfs> {
    extract_as(dir, TAR, archive.to_vec(), archive.to_vec())
}

/// Extracts one layer of the media type `media_type` in a new store below `dir`.
pub fn extract_as(dir: &Path, media_type: &str, blob: Vec<u8>, archive: Vec<u8>) -> Result<VerifiedRootfs> {
    let layout = TestLayout::new(&dir.join("layout"));
    layout.index(&[layout.image(&[(media_type, blob, archive)])]);
    let store = Store::open(&dir.join("store"))?;
    store.rootfs(&store.resolve(&layout.reference())?, RootfsOptions::default())
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("zstd")
}

/// Builds an archive. Headers may be malformed.
#[derive(Default)]
pub struct Tar(pub Vec<u8>, usize);

impl Tar {
    pub fn raw(mut self, kind: u8, path: &[u8], link: &[u8], mode: u32, size: u64, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(size);
        header.set_cksum();
        self.1 = self.0.len();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Changes the last header and updates its checksum.
    pub fn patched(mut self, change: impl Fn(&mut [u8])) -> Self {
        let header = &mut self.0[self.1..self.1 + 512];
        change(header);
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        self.raw(b'0', path.as_bytes(), b"", 0o644, content.len() as u64, content.as_bytes())
    }

    pub fn dir(self, path: &str) -> Self {
        self.raw(b'5', path.as_bytes(), b"", 0o755, 0, b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(b'2', path.as_bytes(), target.as_bytes(), 0o777, 0, b"")
    }

    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.raw(b'1', path.as_bytes(), target.as_bytes(), 0o644, 0, b"")
    }

    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        let record = |(key, value): &(&str, &str)| {
            let rest = format!(" {key}={value}\n");
            let length = (1..).find(|n: &usize| n.to_string().len() + rest.len() == *n).expect("length");
            format!("{length}{rest}")
        };
        let content: String = records.iter().map(record).collect();
        self.raw(b'x', b"PaxHeaders/x", b"", 0o644, content.len() as u64, content.as_bytes())
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// Set for the subprocess that runs as an ordinary user.
const AS_USER: &str = "INVARLOCK_TEST_AS_USER";

/// The peak memory of this process (`VmHWM`), in KiB.
pub fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("peak");
    line.split_whitespace().nth(1).expect("number").parse().expect("number")
}

/// Runs `script` in a new mount namespace, with `dir` as `$D` and an environment variable. Returns its output if it fails.
pub fn run_in_mount_namespace(
    variable: (&str, &str),
    script: &str,
    dir: &Path,
) -> std::result::Result<(), String> {
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", script])
        .env("D", dir)
        .env(variable.0, variable.1)
        .output()
        .expect("unshare");
    if output.status.success() { Ok(()) } else { Err(output_text(&output)) }
}

/// Started as root, runs the test `name` of this program again as an ordinary user, who has no access to root's files.
pub fn run_again_as_user(name: &str) {
    if std::env::var_os(AS_USER).is_some() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED {name} as another user: requires root");
    }
    let dir = scratch();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("mode");
    let program = dir.path().join("test");
    std::fs::copy(std::env::current_exe().expect("own program"), &program).expect("copy");
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=54321", "--regid=54321", "--clear-groups", "--inh-caps=-all", "--"])
        .arg(&program)
        .args(["--exact", name, "--nocapture"])
        .env(AS_USER, "1")
        .current_dir("/")
        .output()
        .expect("setpriv");
    let text = output_text(&output);
    // The rows of the table of attacks.
    text.lines().filter(|line| line.contains(" held")).for_each(|line| println!("{line}"));
    assert!(output.status.success() && text.contains("1 passed"), "as a user:\n{text}");
}
