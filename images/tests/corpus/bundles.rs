//! Hostile archives of whole images: layouts in a tar archive, and what `docker save` writes.

use std::fs;
use std::path::Path;

use invarlock_images::{Digest, Reference};
use serde_json::{Value, json};

use super::As::{self, Input, Integrity, Safety, Unsupported};
use super::Attack;
use crate::common::*;

pub fn attacks() -> Vec<Attack> {
    let mut all = oci();
    all.extend(docker());
    all
}

fn archive() -> Vec<u8> {
    Tar::default().file("a", "x").end()
}

fn bytes(tar: Tar, path: &str, content: &[u8]) -> Tar {
    tar.raw(b'0', path.as_bytes(), b"", 0o644, content.len() as u64, content)
}

fn attack(
    class: &'static str,
    name: &str,
    expected: As,
    make: impl Fn(&Path) -> Vec<u8> + 'static,
) -> Attack {
    let make = move |dir: &Path| {
        fs::create_dir(dir.join("layout")).expect("directory");
        let file = dir.join("layout/image.tar");
        fs::write(&file, make(dir)).expect("archive");
        Reference::parse(&format!("{class}:{}", file.display())).expect("reference")
    };
    Attack { class, name: name.to_owned(), expected, make: Box::new(make) }
}

/// Names with contents.
type Members = Vec<(String, Vec<u8>)>;

/// The members of a good layout, in the order of their names.
fn good_layout(dir: &Path) -> Members {
    let layout = TestLayout::new(&dir.join("layout/good"));
    layout.index(&[layout.image(&[(TAR, archive(), archive())])]);
    let mut members = vec![
        ("oci-layout".to_owned(), fs::read(layout.dir.join("oci-layout")).expect("read")),
        ("index.json".to_owned(), fs::read(layout.dir.join("index.json")).expect("read")),
    ];
    for entry in fs::read_dir(layout.dir.join("blobs/sha256")).expect("list") {
        let entry = entry.expect("entry");
        let name = entry.file_name().into_string().expect("name");
        members.push((format!("blobs/sha256/{name}"), fs::read(entry.path()).expect("read")));
    }
    members
}

fn packed(members: Members) -> Tar {
    members.into_iter().fold(Tar::default(), |tar, (name, content)| bytes(tar, &name, &content))
}

fn oci() -> Vec<Attack> {
    let case = |name, expected, change: fn(&Path, Members) -> Vec<u8>| {
        attack("oci-archive", name, expected, move |dir| change(dir, good_layout(dir)))
    };
    fn without(members: Members, name: &str) -> Tar {
        packed(members.into_iter().filter(|it| !it.0.contains(name)).collect())
    }
    fn layer() -> String {
        format!("blobs/sha256/{}", Digest::of(&archive()).hex())
    }
    vec![
        case("index twice", Safety, |_, good| {
            let index = good[1].1.clone();
            bytes(packed(good), "index.json", &index).end()
        }),
        case("index twice, in two ways to write it", Safety, |_, good| {
            let index = good[1].1.clone();
            bytes(packed(good), "./index.json", &index).end()
        }),
        case("layer twice", Safety, |_, good| bytes(packed(good), &layer(), b"evil").end()),
        case("layer that is a link out", Integrity, |_, good| {
            without(good, &layer()).symlink(&layer(), "../../../../canary/file").end()
        }),
        case("layer that is a link to /dev/zero", Integrity, |_, good| {
            without(good, &layer()).symlink(&layer(), "/dev/zero").end()
        }),
        case("layer that is a link and a file", Safety, |_, good| packed(good).symlink(&layer(), "x").end()),
        case("layer that is a device", Safety, |_, good| {
            without(good, &layer()).raw(b'3', layer().as_bytes(), b"", 0o644, 0, b"").end()
        }),
        case("member that leads up", Safety, |_, good| packed(good).file("../canary/file", "dead").end()),
        case("no index", Integrity, |_, good| without(good, "index.json").end()),
        case("no oci-layout", Integrity, |_, good| without(good, "oci-layout").end()),
        case("no layer", Integrity, |_, good| without(good, &layer()).end()),
        case("layer of other bytes", Integrity, |_, good| {
            bytes(without(good, &layer()), &layer(), &Tar::default().file("a", "y").end()).end()
        }),
        case("index of 5 MiB", Safety, |_, good| {
            let index = [good[1].1.clone(), vec![b' '; 5 << 20]].concat();
            bytes(without(good, "index.json"), "index.json", &index).end()
        }),
        case("cut in the layer", Integrity, |_, good| {
            let mut it = bytes(without(good, &layer()), &layer(), &archive()).0;
            it.truncate(it.len() - 600);
            it
        }),
        case("10,001 members", Safety, |_, good| {
            (0..10_001).fold(packed(good), |tar, i| tar.file(&format!("m{i}"), "")).end()
        }),
        case("compressed as a whole", Unsupported, |_, good| gzip(&packed(good).end())),
        case("another kind of archive", Integrity, |_, _| b"PK\x03\x04".repeat(400)),
        case("two images, none named", Input, |dir, _| {
            let layout = TestLayout::new(&dir.join("layout/two"));
            let other = Tar::default().file("b", "y").end();
            let images = [archive(), other].map(|it| layout.image(&[(TAR, it.clone(), it)]));
            let index = json!({"schemaVersion": 2, "manifests": images}).to_string();
            let tar = bytes(Tar::default(), "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
            bytes(tar, "index.json", index.as_bytes()).end()
        }),
    ]
}

/// What is changed of a good archive of Docker's.
struct Docker {
    config: Vec<u8>,
    manifest: Value,
    layer: Vec<u8>,
}

impl Docker {
    fn good() -> Self {
        let ids = json!([Digest::of(&archive())]);
        let config =
            json!({"architecture": arch(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}});
        let manifest = json!([{"Config": "config.json", "RepoTags": ["it:1"], "Layers": ["a/layer.tar"]}]);
        Self { config: config.to_string().into_bytes(), manifest, layer: archive() }
    }

    fn with(key: &str, value: Value) -> Self {
        let mut it = Self::good();
        it.manifest[0][key] = value;
        it
    }

    fn without_layer(&self) -> Tar {
        let tar = bytes(Tar::default(), "config.json", &self.config);
        bytes(tar, "manifest.json", self.manifest.to_string().as_bytes())
    }

    fn pack(self) -> Tar {
        let tar = self.without_layer();
        bytes(tar, "a/layer.tar", &self.layer)
    }
}

fn docker() -> Vec<Attack> {
    let case =
        |name, expected, make: fn() -> Vec<u8>| attack("docker-archive", name, expected, move |_| make());
    vec![
        case("configuration that lies outside", Integrity, || {
            Docker::with("Config", json!("../../../../canary/file")).pack().end()
        }),
        case("configuration by an absolute path", Integrity, || {
            Docker::with("Config", json!("/etc/passwd")).pack().end()
        }),
        case("layer that lies outside", Integrity, || {
            Docker::with("Layers", json!(["../../canary/file"])).pack().end()
        }),
        case("layer that is a link out", Integrity, || {
            Docker::good().without_layer().symlink("a/layer.tar", "../../../../canary/file").end()
        }),
        case("layer that is a link to itself", Integrity, || {
            Docker::good().without_layer().symlink("a/layer.tar", "layer.tar").end()
        }),
        case("layer that is a link to a link", Integrity, || {
            let tar = Docker::good().without_layer().symlink("a/layer.tar", "../b").symlink("b", "c");
            tar.file("c", "x").end()
        }),
        case("layer of other bytes", Integrity, || {
            Docker { layer: Tar::default().file("a", "y").end(), ..Docker::good() }.pack().end()
        }),
        case("layer compressed, of other bytes", Integrity, || {
            Docker { layer: gzip(&Tar::default().file("a", "y").end()), ..Docker::good() }.pack().end()
        }),
        case("more layers than diff ids", Integrity, || {
            Docker::with("Layers", json!(["a/layer.tar", "a/layer.tar"])).pack().end()
        }),
        case("no layers", Integrity, || Docker::with("Layers", json!([])).pack().end()),
        case("manifest that is no list", Integrity, || {
            Docker { manifest: json!({}), ..Docker::good() }.pack().end()
        }),
        case("no manifest", Integrity, || bytes(Tar::default(), "config.json", &Docker::good().config).end()),
        case("manifest twice", Safety, || bytes(Docker::good().pack(), "manifest.json", b"[]").end()),
        case("no image", Input, || Docker { manifest: json!([]), ..Docker::good() }.pack().end()),
        case("1,001 images", Safety, || {
            let one = Docker::good().manifest[0].clone();
            Docker { manifest: vec![one; 1001].into(), ..Docker::good() }.pack().end()
        }),
        case("configuration that is none", Integrity, || {
            Docker { config: b"{}".to_vec(), ..Docker::good() }.pack().end()
        }),
        case("configuration of 5 MiB", Safety, || {
            Docker { config: vec![b' '; 5 << 20], ..Docker::good() }.pack().end()
        }),
    ]
}
