//! Hostile image archives: OCI archives (layouts in a tar archive) and Docker archives (as `docker save` writes them).

use std::fs;
use std::path::Path;

use invarlock_images::{Digest, Reference};
use serde_json::{Value, json};

use super::Attack;
use super::Expected::{self, Input, Integrity, Safety, Unsupported};
use crate::common::*;

pub fn attacks() -> Vec<Attack> {
    let mut all = oci();
    all.extend(docker());
    all
}

fn archive() -> Vec<u8> {
    Tar::default().file("a", "x").end()
}

fn with_member(tar: Tar, path: &str, content: &[u8]) -> Tar {
    tar.raw(b'0', path.as_bytes(), b"", 0o644, content.len() as u64, content)
}

fn attack(
    class: &'static str,
    name: &str,
    expected: Expected,
    create: impl Fn(&Path) -> Vec<u8> + 'static,
) -> Attack {
    let create = move |dir: &Path| {
        fs::create_dir(dir.join("layout")).expect("directory");
        let file = dir.join("layout/image.tar");
        fs::write(&file, create(dir)).expect("archive");
        Reference::parse(&format!("{class}:{}", file.display())).expect("reference")
    };
    Attack { class, name: name.to_owned(), expected, create: Box::new(create) }
}

/// Names and contents.
type Members = Vec<(String, Vec<u8>)>;

/// The members of a valid layout, documents first.
fn valid_members(dir: &Path) -> Members {
    let layout = TestLayout::new(&dir.join("layout/valid"));
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

fn tar_of(members: Members) -> Tar {
    members.into_iter().fold(Tar::default(), |tar, (name, content)| with_member(tar, &name, &content))
}

fn oci() -> Vec<Attack> {
    let case = |name, expected, change: fn(&Path, Members) -> Vec<u8>| {
        attack("oci-archive", name, expected, move |dir| change(dir, valid_members(dir)))
    };
    fn without(members: Members, name: &str) -> Tar {
        tar_of(members.into_iter().filter(|(member, _)| !member.contains(name)).collect())
    }
    fn layer() -> String {
        format!("blobs/sha256/{}", Digest::of(&archive()).hex())
    }
    vec![
        case("index twice", Safety, |_, valid| {
            let index = valid[1].1.clone();
            with_member(tar_of(valid), "index.json", &index).end()
        }),
        case("index twice, with two spellings", Safety, |_, valid| {
            let index = valid[1].1.clone();
            with_member(tar_of(valid), "./index.json", &index).end()
        }),
        case("layer twice", Safety, |_, valid| with_member(tar_of(valid), &layer(), b"evil").end()),
        case("layer that is a link out", Integrity, |_, valid| {
            without(valid, &layer()).symlink(&layer(), "../../../../canary/file").end()
        }),
        case("layer that is a link to /dev/zero", Integrity, |_, valid| {
            without(valid, &layer()).symlink(&layer(), "/dev/zero").end()
        }),
        case("layer that is a link and a file", Safety, |_, valid| {
            tar_of(valid).symlink(&layer(), "x").end()
        }),
        case("layer that is a device", Safety, |_, valid| {
            without(valid, &layer()).raw(b'3', layer().as_bytes(), b"", 0o644, 0, b"").end()
        }),
        case("member that leads up", Safety, |_, valid| tar_of(valid).file("../canary/file", "dead").end()),
        case("no index", Integrity, |_, valid| without(valid, "index.json").end()),
        case("no oci-layout", Integrity, |_, valid| without(valid, "oci-layout").end()),
        case("tar without an image", Input, |_, _| Tar::default().file("etc/passwd", "root").end()),
        case("no layer", Integrity, |_, valid| without(valid, &layer()).end()),
        case("layer of other bytes", Integrity, |_, valid| {
            with_member(without(valid, &layer()), &layer(), &Tar::default().file("a", "y").end()).end()
        }),
        case("index of 5 MiB", Safety, |_, valid| {
            let index = [valid[1].1.clone(), vec![b' '; 5 << 20]].concat();
            with_member(without(valid, "index.json"), "index.json", &index).end()
        }),
        case("truncated in the layer", Integrity, |_, valid| {
            let mut archive = with_member(without(valid, &layer()), &layer(), &archive()).0;
            archive.truncate(archive.len() - 600);
            archive
        }),
        case("10,001 members", Safety, |_, valid| {
            (0..10_001).fold(tar_of(valid), |tar, i| tar.file(&format!("m{i}"), "")).end()
        }),
        case("compressed as a whole", Unsupported, |_, valid| gzip(&tar_of(valid).end())),
        case("another kind of archive", Integrity, |_, _| b"PK\x03\x04".repeat(400)),
        case("two images, none named", Input, |dir, _| {
            let layout = TestLayout::new(&dir.join("layout/two"));
            let other = Tar::default().file("b", "y").end();
            let images = [archive(), other].map(|layer| layout.image(&[(TAR, layer.clone(), layer)]));
            let index = json!({"schemaVersion": 2, "manifests": images}).to_string();
            let tar = with_member(Tar::default(), "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
            with_member(tar, "index.json", index.as_bytes()).end()
        }),
    ]
}

/// The parts of a Docker archive.
struct DockerArchive {
    config: Vec<u8>,
    manifest: Value,
    layer: Vec<u8>,
}

impl DockerArchive {
    fn valid() -> Self {
        let ids = json!([Digest::of(&archive())]);
        let config =
            json!({"architecture": arch(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}});
        let manifest = json!([{"Config": "config.json", "RepoTags": ["it:1"], "Layers": ["a/layer.tar"]}]);
        Self { config: config.to_string().into_bytes(), manifest, layer: archive() }
    }

    fn with(key: &str, value: Value) -> Self {
        let mut archive = Self::valid();
        archive.manifest[0][key] = value;
        archive
    }

    fn without_layer(&self) -> Tar {
        let tar = with_member(Tar::default(), "config.json", &self.config);
        with_member(tar, "manifest.json", self.manifest.to_string().as_bytes())
    }

    fn tar(self) -> Tar {
        let tar = self.without_layer();
        with_member(tar, "a/layer.tar", &self.layer)
    }
}

fn docker() -> Vec<Attack> {
    let case =
        |name, expected, create: fn() -> Vec<u8>| attack("docker-archive", name, expected, move |_| create());
    vec![
        case("configuration outside", Integrity, || {
            DockerArchive::with("Config", json!("../../../../canary/file")).tar().end()
        }),
        case("configuration by an absolute path", Integrity, || {
            DockerArchive::with("Config", json!("/etc/passwd")).tar().end()
        }),
        case("layer outside", Integrity, || {
            DockerArchive::with("Layers", json!(["../../canary/file"])).tar().end()
        }),
        case("layer that is a link out", Integrity, || {
            DockerArchive::valid().without_layer().symlink("a/layer.tar", "../../../../canary/file").end()
        }),
        case("layer that is a link to itself", Integrity, || {
            DockerArchive::valid().without_layer().symlink("a/layer.tar", "layer.tar").end()
        }),
        case("layer that is a link to a link", Integrity, || {
            let tar = DockerArchive::valid().without_layer().symlink("a/layer.tar", "../b").symlink("b", "c");
            tar.file("c", "x").end()
        }),
        case("layer of other bytes", Integrity, || {
            DockerArchive { layer: Tar::default().file("a", "y").end(), ..DockerArchive::valid() }.tar().end()
        }),
        case("layer compressed, of other bytes", Integrity, || {
            DockerArchive { layer: gzip(&Tar::default().file("a", "y").end()), ..DockerArchive::valid() }
                .tar()
                .end()
        }),
        case("more layers than diff ids", Integrity, || {
            DockerArchive::with("Layers", json!(["a/layer.tar", "a/layer.tar"])).tar().end()
        }),
        case("no layers", Integrity, || DockerArchive::with("Layers", json!([])).tar().end()),
        case("manifest that is no list", Integrity, || {
            DockerArchive { manifest: json!({}), ..DockerArchive::valid() }.tar().end()
        }),
        case("no manifest", Integrity, || {
            with_member(Tar::default(), "config.json", &DockerArchive::valid().config).end()
        }),
        case("manifest twice", Safety, || {
            with_member(DockerArchive::valid().tar(), "manifest.json", b"[]").end()
        }),
        case("no image", Input, || {
            DockerArchive { manifest: json!([]), ..DockerArchive::valid() }.tar().end()
        }),
        case("1,001 images", Safety, || {
            let one = DockerArchive::valid().manifest[0].clone();
            DockerArchive { manifest: vec![one; 1001].into(), ..DockerArchive::valid() }.tar().end()
        }),
        case("empty configuration", Integrity, || {
            DockerArchive { config: b"{}".to_vec(), ..DockerArchive::valid() }.tar().end()
        }),
        case("configuration of 5 MiB", Safety, || {
            DockerArchive { config: vec![b' '; 5 << 20], ..DockerArchive::valid() }.tar().end()
        }),
    ]
}
