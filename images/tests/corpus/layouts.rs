//! Hostile documents and layouts: wrong types, sizes, digests and file types.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use invarlock_images::{Digest, Reference};
use serde_json::{Value, json};

use super::Expected::{Input, Integrity, Safety, Unsupported};
use super::{Attack, Create};
use crate::common::*;

pub fn attacks() -> Vec<Attack> {
    let mut all = documents();
    all.extend(indexes());
    all.extend(on_disk());
    all
}

fn archive() -> Vec<u8> {
    Tar::default().file("a", "x").end()
}

/// An attack by a manifest: a valid one with the fields `more`.
fn manifest(
    name: &str,
    expected: super::Expected,
    more: impl Fn(&TestLayout, &ValidImage) -> Value + 'static,
) -> Attack {
    attack("document", name, expected, move |layout| {
        let valid = ValidImage::new(layout);
        let mut manifest = valid.manifest();
        manifest
            .as_object_mut()
            .expect("object")
            .extend(more(layout, &valid).as_object().expect("object").clone());
        layout.index(&[layout.json(MANIFEST, &manifest)]);
    })
}

fn attack(
    class: &'static str,
    name: &str,
    expected: super::Expected,
    create: impl Fn(&TestLayout) + 'static,
) -> Attack {
    Attack { class, name: name.to_owned(), expected, create: in_layout(create) }
}

fn in_layout(create: impl Fn(&TestLayout) + 'static) -> Create {
    Box::new(move |dir: &Path| -> Reference {
        let layout = TestLayout::new(&dir.join("layout"));
        create(&layout);
        layout.reference()
    })
}

struct ValidImage {
    config: Value,
    layer: Value,
}

impl ValidImage {
    fn new(layout: &TestLayout) -> Self {
        let archive = archive();
        let layer = json!({"mediaType": TAR, "digest": layout.blob(&archive), "size": archive.len()});
        Self { config: layout.config(&[Digest::of(&archive)]), layer }
    }

    fn manifest(&self) -> Value {
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": self.config, "layers": [self.layer]})
    }
}

/// A descriptor with one field changed.
fn with_field(descriptor: &Value, key: &str, value: impl Into<Value>) -> Value {
    let mut changed = descriptor.clone();
    changed[key] = value.into();
    changed
}

fn documents() -> Vec<Attack> {
    let none = || json!(Digest::of(b"none"));
    vec![
        manifest("both layers and manifests, CVE-2021-41190", Safety, |_, _| json!({"manifests": []})),
        manifest("layers of schema 1 in addition", Safety, |_, _| json!({"fsLayers": []})),
        manifest("schema 1", Unsupported, |_, _| json!({"schemaVersion": 1})),
        manifest("media type of an index inside", Integrity, |_, _| json!({"mediaType": INDEX})),
        manifest("fewer layers than diff ids", Integrity, |_, _| json!({"layers": []})),
        manifest(
            "more layers than diff ids",
            Integrity,
            |_, valid| json!({"layers": [valid.layer, valid.layer]}),
        ),
        manifest(
            "layer of an unknown type",
            Unsupported,
            |_, valid| json!({"layers": [with_field(&valid.layer, "mediaType", "application/x-what")]}),
        ),
        manifest("layer that only a foreign URL has", Integrity, move |_, valid| {
            let kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
            let layer = with_field(&with_field(&valid.layer, "mediaType", kind), "digest", none());
            json!({"layers": [with_field(&layer, "urls", json!(["http://192.0.2.1/x"]))]})
        }),
        manifest(
            "layer of another size",
            Integrity,
            |_, valid| json!({"layers": [with_field(&valid.layer, "size", 7)]}),
        ),
        manifest(
            "layer of 8 EiB",
            Safety,
            |_, valid| json!({"layers": [with_field(&valid.layer, "size", i64::MAX)]}),
        ),
        manifest(
            "layer whose size overflows",
            Safety,
            |_, valid| json!({"layers": [with_field(&valid.layer, "size", u64::MAX)]}),
        ),
        manifest(
            "layer of a negative size",
            Integrity,
            |_, valid| json!({"layers": [with_field(&valid.layer, "size", -1)]}),
        ),
        manifest(
            "layer that is missing",
            Integrity,
            move |_, valid| json!({"layers": [with_field(&valid.layer, "digest", none())]}),
        ),
        manifest(
            "layer that is missing, with its bytes in the descriptor",
            Integrity,
            move |_, valid| json!({"layers": [with_field(&with_field(&valid.layer, "digest", none()), "data", "eA==")]}),
        ),
        manifest(
            "layer of another algorithm",
            Unsupported,
            |_, valid| json!({"layers": [with_field(&valid.layer, "digest", format!("sha512:{}", "0".repeat(128)))]}),
        ),
        manifest(
            "layer whose digest is a path",
            Integrity,
            |_, valid| json!({"layers": [with_field(&valid.layer, "digest", "sha256:../../../../canary/file")]}),
        ),
        manifest("layer whose digest is in upper case", Integrity, |_, valid| {
            let digest =
                valid.layer["digest"].as_str().expect("digest").to_uppercase().replace("SHA256", "sha256");
            json!({"layers": [with_field(&valid.layer, "digest", digest)]})
        }),
        manifest("layer with the digest of another archive", Integrity, |layout, valid| {
            let other = Tar::default().file("a", "evil").end();
            json!({"layers": [with_field(&with_field(&valid.layer, "digest", json!(layout.blob(&other))), "size", other.len())]})
        }),
        manifest(
            "empty configuration",
            Unsupported,
            |_, valid| json!({"config": with_field(&valid.config, "mediaType", "application/vnd.oci.empty.v1+json")}),
        ),
        manifest("configuration that is an archive", Integrity, |layout, valid| {
            let digest = json!(layout.blob(&archive()));
            json!({"config": with_field(&with_field(&valid.config, "digest", digest), "size", archive().len())})
        }),
        manifest("configuration of 5 MiB", Safety, |layout, valid| {
            let digest = json!(layout.blob(&vec![b' '; 5 << 20]));
            json!({"config": with_field(&with_field(&valid.config, "digest", digest), "size", 5 << 20)})
        }),
        manifest("configuration for another system", Unsupported, |layout, _| {
            config(layout, json!({"os": "windows"}))
        }),
        manifest("configuration for another machine", Unsupported, |layout, _| {
            config(layout, json!({"architecture": "s390x"}))
        }),
        manifest("diff id of another archive", Integrity, |layout, _| {
            config(layout, json!({"rootfs": {"type": "layers", "diff_ids": [Digest::of(b"other")]}}))
        }),
        manifest("diff id that is a path", Integrity, |layout, _| {
            config(layout, json!({"rootfs": {"type": "layers", "diff_ids": ["sha256:../../../canary"]}}))
        }),
        manifest("129 layers", Unsupported, |layout, valid| {
            let ids = vec![json!(Digest::of(&archive())); 129];
            let mut fields = config(layout, json!({"rootfs": {"type": "layers", "diff_ids": ids}}));
            fields["layers"] = vec![valid.layer.clone(); 129].into();
            fields
        }),
        manifest("no layer", Unsupported, |layout, _| {
            let mut fields = config(layout, json!({"rootfs": {"type": "layers", "diff_ids": []}}));
            fields["layers"] = json!([]);
            fields
        }),
        raw_manifest("layers twice", |valid| {
            format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[{}],"layers":[]}}"#,
                valid.config, valid.layer
            )
        }),
        raw_manifest("trailing data after the manifest", |valid| format!("{} {{}}", valid.manifest())),
        raw_manifest("nested too deeply", |_| "[".repeat(100_000)),
        raw_manifest("not text", |_| "\0\0\0\0".to_owned()),
        raw_manifest("empty", |_| String::new()),
    ]
}

/// A manifest's field `config` with a configuration that has the fields `more`.
fn config(layout: &TestLayout, more: Value) -> Value {
    let ids = json!([Digest::of(&archive())]);
    let mut config =
        json!({"architecture": arch(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}});
    config.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
    json!({"config": layout.json(CONFIG, &config)})
}

fn raw_manifest(name: &str, text: impl Fn(&ValidImage) -> String + 'static) -> Attack {
    attack("document", name, Integrity, move |layout| {
        let text = text(&ValidImage::new(layout));
        layout.index(&[
            json!({"mediaType": MANIFEST, "digest": layout.blob(text.as_bytes()), "size": text.len()}),
        ]);
    })
}

fn valid(layout: &TestLayout) -> Value {
    let valid = ValidImage::new(layout);
    layout.json(MANIFEST, &valid.manifest())
}

fn with_platform(descriptor: &Value, os: &str, architecture: &str) -> Value {
    with_field(descriptor, "platform", json!({"os": os, "architecture": architecture}))
}

fn indexes() -> Vec<Attack> {
    let index = |name, expected, create: fn(&TestLayout) -> Vec<Value>| {
        attack("index", name, expected, move |layout| layout.index(&create(layout)))
    };
    let raw = |name, expected, text: fn(&TestLayout) -> String| {
        attack("index", name, expected, move |layout| {
            fs::write(layout.dir.join("index.json"), text(layout)).expect("index");
        })
    };
    vec![
        index("two images, none named", Input, |layout| {
            vec![valid(layout), layout.image(&[(TAR, Tar::default().end(), Tar::default().end())])]
        }),
        index("no image", Input, |_| Vec::new()),
        index("wrong size", Integrity, |layout| vec![with_field(&valid(layout), "size", 3)]),
        index("size that overflows", Safety, |layout| vec![with_field(&valid(layout), "size", u64::MAX)]),
        index("manifest of 5 MiB", Safety, |layout| vec![with_field(&valid(layout), "size", 5 << 20)]),
        index("unknown media type", Unsupported, |layout| {
            vec![with_field(&valid(layout), "mediaType", "text/plain")]
        }),
        index("manifest declared as an index", Safety, |layout| {
            vec![with_field(&valid(layout), "mediaType", INDEX)]
        }),
        index("missing manifest", Integrity, |layout| {
            vec![with_field(&valid(layout), "digest", json!(Digest::of(b"none")))]
        }),
        index("manifest whose digest is a path", Integrity, |layout| {
            vec![with_field(&valid(layout), "digest", "sha256:../../../canary/file")]
        }),
        index("no image for this machine", Unsupported, |layout| {
            let other = with_platform(&valid(layout), "linux", "s390x");
            vec![layout.json(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other]}))]
        }),
        index("two images for this machine in the layout itself", Input, |layout| {
            let two = layout.image(&[(TAR, Tar::default().end(), Tar::default().end())]);
            [valid(layout), two].map(|image| with_platform(&image, "linux", arch())).to_vec()
        }),
        index("attestation alone", Input, |layout| {
            let attestation = json!({"vnd.docker.reference.type": "attestation-manifest"});
            vec![with_field(&valid(layout), "annotations", attestation)]
        }),
        index("index in an index, five levels deep", Safety, |layout| {
            let mut nested = with_platform(&valid(layout), "linux", arch());
            for _ in 0..5 {
                let inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [nested]});
                nested = with_platform(&layout.json(INDEX, &inner), "linux", arch());
            }
            vec![nested]
        }),
        index("layers in a nested index", Safety, |layout| {
            let image = with_platform(&valid(layout), "linux", arch());
            let both = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [image], "layers": []});
            vec![layout.json(INDEX, &both)]
        }),
        raw("layers in the index", Safety, |layout| {
            json!({"schemaVersion": 2, "manifests": [valid(layout)], "layers": []}).to_string()
        }),
        raw("a manifest instead of the index", Safety, |layout| {
            ValidImage::new(layout).manifest().to_string()
        }),
        raw("5 MiB", Safety, |layout| {
            format!("{}{}", json!({"schemaVersion": 2, "manifests": [valid(layout)]}), " ".repeat(5 << 20))
        }),
        raw("manifests twice", Integrity, |layout| {
            let valid = valid(layout);
            format!(r#"{{"schemaVersion":2,"manifests":[{valid}],"manifests":[]}}"#)
        }),
        raw("nested too deeply", Integrity, |_| "{\"a\":".repeat(100_000)),
        raw("truncated", Integrity, |layout| {
            let text = json!({"schemaVersion": 2, "manifests": [valid(layout)]}).to_string();
            text[..text.len() - 2].to_owned()
        }),
    ]
}

/// Layouts whose files have another type or content than expected (E8 of docs/attacks.md).
fn on_disk() -> Vec<Attack> {
    fn blob(layout: &TestLayout, digest: &Value) -> std::path::PathBuf {
        layout.dir.join("blobs/sha256").join(digest.as_str().expect("digest").trim_start_matches("sha256:"))
    }
    let with_good = |name, expected, change: fn(&TestLayout, &Value)| {
        attack("layout", name, expected, move |layout| {
            let manifest = valid(layout);
            layout.index(std::slice::from_ref(&manifest));
            change(layout, &manifest["digest"]);
        })
    };
    fn moved(layout: &TestLayout, name: &str) {
        fs::rename(layout.dir.join(name), layout.dir.join("moved")).expect("move");
        symlink("moved", layout.dir.join(name)).expect("link");
    }
    vec![
        with_good("manifest that is a link", Safety, |layout, digest| {
            let path = blob(layout, digest);
            fs::rename(&path, layout.dir.join("moved")).expect("move");
            symlink("../../moved", path).expect("link");
        }),
        with_good("layer that is a link", Safety, |layout, _| {
            let path = blob(layout, &json!(Digest::of(&archive())));
            fs::rename(&path, layout.dir.join("moved")).expect("move");
            symlink("../../moved", path).expect("link");
        }),
        with_good("layer that is a link to /dev/zero", Safety, |layout, _| {
            let path = blob(layout, &json!(Digest::of(&archive())));
            fs::remove_file(&path).expect("remove");
            symlink("/dev/zero", path).expect("link");
        }),
        with_good("layer that is a directory", Safety, |layout, _| {
            let path = blob(layout, &json!(Digest::of(&archive())));
            fs::remove_file(&path).expect("remove");
            fs::create_dir(path).expect("directory");
        }),
        with_good("layer that is a fifo", Safety, |layout, _| {
            let path = blob(layout, &json!(Digest::of(&archive())));
            fs::remove_file(&path).expect("remove");
            fifo(&path);
        }),
        with_good("index that is a link", Safety, |layout, _| moved(layout, "index.json")),
        with_good("blobs that are a link", Safety, |layout, _| moved(layout, "blobs")),
        with_good("oci-layout that is a link", Safety, |layout, _| moved(layout, "oci-layout")),
        with_good("oci-layout of an unknown version", Unsupported, |layout, _| {
            fs::write(layout.dir.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).expect("write");
        }),
        with_good("malformed oci-layout", Integrity, |layout, _| {
            fs::write(layout.dir.join("oci-layout"), "1.0.0").expect("write");
        }),
        with_good("no oci-layout", Integrity, |layout, _| {
            fs::remove_file(layout.dir.join("oci-layout")).expect("remove");
        }),
        with_good("modified layer of the same length", Integrity, |layout, _| {
            let path = blob(layout, &json!(Digest::of(&archive())));
            let mut bytes = fs::read(&path).expect("read");
            bytes[520] ^= 1;
            fs::write(path, bytes).expect("write");
        }),
        with_good("modified manifest of the same length", Integrity, |layout, digest| {
            let path = blob(layout, digest);
            let text = fs::read_to_string(&path)
                .expect("read")
                .replace("\"schemaVersion\":2", "\"schemaVersion\":3");
            fs::write(path, text).expect("write");
        }),
    ]
}

/// Images that look like an attack but are harmless, because each layer is extracted separately and never onto another one.
pub fn harmless() -> Vec<(&'static str, Create)> {
    fn layers(archives: Vec<Vec<u8>>) -> Create {
        in_layout(move |layout| {
            let layers: Vec<_> =
                archives.iter().map(|archive| (TAR, archive.clone(), archive.clone())).collect();
            layout.index(&[layout.image(&layers)]);
        })
    }
    let tar = Tar::default;
    let up = "../../../../../canary";
    vec![
        (
            "file through a link of the layer below",
            layers(vec![tar().symlink("a", up).end(), tar().file("a/file", "dead").end()]),
        ),
        (
            "directory of the layer above over a link",
            layers(vec![tar().symlink("a", up).end(), tar().dir("a/").file("a/file", "dead").end()]),
        ),
        (
            "whiteout through a link of the layer below",
            layers(vec![tar().symlink("a", up).end(), tar().file("a/.wh.file", "").end()]),
        ),
        (
            "opaque directory over a link",
            layers(vec![tar().symlink("a", up).end(), tar().file("a/.wh..wh..opq", "").end()]),
        ),
        (
            "whiteout of the link's target",
            layers(vec![
                tar().symlink("a", up).end(),
                tar().file(".wh.a", "").end(),
                tar().file("a/file", "dead").end(),
            ]),
        ),
        (
            "absolute names, which are relative to the layer",
            layers(vec![
                tar().dir("/").dir("//d/").file("/d/file", "x").file(".//tmp/invarlock-x", "x").end(),
                tar().file("/etc/passwd", "root::0:0").hardlink("/etc/shadow", "/etc/passwd").end(),
                tar().file("a/./b", "x").file("a//c", "x").end(),
            ]),
        ),
        (
            "hard link to a link that leads out",
            layers(vec![tar().symlink("s", "../../../../canary/file").hardlink("a", "s").end()]),
        ),
        (
            "whiteouts that are links out, directories and devices",
            layers(vec![
                tar().file("a", "x").end(),
                tar()
                    .symlink(".wh.a", "../../../../canary/file")
                    .dir("d/.wh.b/")
                    .hardlink("d/.wh.c", "no/such/file")
                    .raw(b'3', b".wh.null", b"", 0o666, 0, b"")
                    .symlink("e/.wh..wh..opq", "../../../../canary")
                    .end(),
            ]),
        ),
        (
            "layer with a foreign URL",
            in_layout(|layout| {
                let valid = ValidImage::new(layout);
                let mut manifest = valid.manifest();
                manifest["layers"][0]["mediaType"] =
                    json!("application/vnd.docker.image.rootfs.foreign.diff.tar");
                manifest["layers"][0]["urls"] = json!(["http://192.0.2.1/x"]);
                layout.index(&[layout.json(MANIFEST, &manifest)]);
            }),
        ),
        (
            "link to the layer's own root and out",
            layers(vec![tar().symlink("a", "/").symlink("b", up).end()]),
        ),
        (
            "content of a layer in its descriptor",
            in_layout(|layout| {
                let valid = ValidImage::new(layout);
                let mut manifest = valid.manifest();
                manifest["layers"][0]["data"] = json!("bGllcw==");
                manifest["layers"][0]["urls"] = json!(["file:///etc/passwd"]);
                layout.index(&[layout.json(MANIFEST, &manifest)]);
            }),
        ),
        (
            "annotations with paths and escape sequences",
            in_layout(|layout| {
                let mut descriptor = valid(layout);
                descriptor["annotations"] = json!({
                    "org.opencontainers.image.ref.name": "../../../canary/\u{1b}[2J",
                    "org.opencontainers.image.title": "/etc/passwd",
                });
                layout.index(&[descriptor]);
            }),
        ),
    ]
}

fn fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("fifo");
}
