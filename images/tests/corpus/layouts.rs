//! Hostile images: what their documents say of each other, of blobs and of themselves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use invarlock_images::{Digest, Reference};
use serde_json::{Value, json};

use super::As::{Input, Integrity, Safety, Unsupported};
use super::{Attack, Make};
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

/// An attack by what a manifest says: `more` is put into a good one, whose layer and configuration it gets.
fn manifest(name: &str, expected: super::As, more: impl Fn(&TestLayout, &Good) -> Value + 'static) -> Attack {
    attack("document", name, expected, move |layout| {
        let good = Good::new(layout);
        let mut it = good.manifest();
        it.as_object_mut().expect("object").extend(more(layout, &good).as_object().expect("object").clone());
        layout.index(&[layout.json(MANIFEST, &it)]);
    })
}

fn attack(
    class: &'static str,
    name: &str,
    expected: super::As,
    make: impl Fn(&TestLayout) + 'static,
) -> Attack {
    Attack { class, name: name.to_owned(), expected, make: in_layout(make) }
}

fn in_layout(make: impl Fn(&TestLayout) + 'static) -> Make {
    Box::new(move |dir: &Path| -> Reference {
        let layout = TestLayout::new(&dir.join("layout"));
        make(&layout);
        layout.reference()
    })
}

struct Good {
    config: Value,
    layer: Value,
}

impl Good {
    fn new(layout: &TestLayout) -> Self {
        let archive = archive();
        let layer = json!({"mediaType": TAR, "digest": layout.blob(&archive), "size": archive.len()});
        Self { config: layout.config(&[Digest::of(&archive)]), layer }
    }

    fn manifest(&self) -> Value {
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": self.config, "layers": [self.layer]})
    }
}

/// A descriptor with one member changed.
fn but(it: &Value, key: &str, value: impl Into<Value>) -> Value {
    let mut it = it.clone();
    it[key] = value.into();
    it
}

fn documents() -> Vec<Attack> {
    let none = || json!(Digest::of(b"none"));
    vec![
        manifest("both layers and manifests, CVE-2021-41190", Safety, |_, _| json!({"manifests": []})),
        manifest("layers of schema 1 besides", Safety, |_, _| json!({"fsLayers": []})),
        manifest("schema 1", Unsupported, |_, _| json!({"schemaVersion": 1})),
        manifest("media type of an index inside", Integrity, |_, _| json!({"mediaType": INDEX})),
        manifest("fewer layers than diff ids", Integrity, |_, _| json!({"layers": []})),
        manifest(
            "more layers than diff ids",
            Integrity,
            |_, good| json!({"layers": [good.layer, good.layer]}),
        ),
        manifest(
            "layer of an unknown type",
            Unsupported,
            |_, good| json!({"layers": [but(&good.layer, "mediaType", "application/x-what")]}),
        ),
        manifest("layer that is said to lie elsewhere", Unsupported, |_, good| {
            let kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
            json!({"layers": [but(&but(&good.layer, "mediaType", kind), "urls", json!(["http://192.0.2.1/x"]))]})
        }),
        manifest(
            "layer of another size",
            Integrity,
            |_, good| json!({"layers": [but(&good.layer, "size", 7)]}),
        ),
        manifest(
            "layer of an endless size",
            Safety,
            |_, good| json!({"layers": [but(&good.layer, "size", i64::MAX)]}),
        ),
        manifest(
            "layer of a size no number holds",
            Safety,
            |_, good| json!({"layers": [but(&good.layer, "size", u64::MAX)]}),
        ),
        manifest(
            "layer of a negative size",
            Integrity,
            |_, good| json!({"layers": [but(&good.layer, "size", -1)]}),
        ),
        manifest(
            "layer that is missing",
            Integrity,
            move |_, good| json!({"layers": [but(&good.layer, "digest", none())]}),
        ),
        manifest(
            "layer that is missing, with its bytes in the descriptor",
            Integrity,
            move |_, good| json!({"layers": [but(&but(&good.layer, "digest", none()), "data", "eA==")]}),
        ),
        manifest(
            "layer of another algorithm",
            Unsupported,
            |_, good| json!({"layers": [but(&good.layer, "digest", format!("sha512:{}", "0".repeat(128)))]}),
        ),
        manifest(
            "layer whose digest is a path",
            Integrity,
            |_, good| json!({"layers": [but(&good.layer, "digest", "sha256:../../../../canary/file")]}),
        ),
        manifest("layer whose digest is in capitals", Integrity, |_, good| {
            let digest =
                good.layer["digest"].as_str().expect("digest").to_uppercase().replace("SHA256", "sha256");
            json!({"layers": [but(&good.layer, "digest", digest)]})
        }),
        manifest("layer by the digest of another archive", Integrity, |layout, good| {
            let other = Tar::default().file("a", "evil").end();
            json!({"layers": [but(&but(&good.layer, "digest", json!(layout.blob(&other))), "size", other.len())]})
        }),
        manifest(
            "configuration that is none",
            Unsupported,
            |_, good| json!({"config": but(&good.config, "mediaType", "application/vnd.oci.empty.v1+json")}),
        ),
        manifest("configuration that is an archive", Integrity, |layout, good| {
            let digest = json!(layout.blob(&archive()));
            json!({"config": but(&but(&good.config, "digest", digest), "size", archive().len())})
        }),
        manifest("configuration of 5 MiB", Safety, |layout, good| {
            let digest = json!(layout.blob(&vec![b' '; 5 << 20]));
            json!({"config": but(&but(&good.config, "digest", digest), "size", 5 << 20)})
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
        manifest("129 layers", Unsupported, |layout, good| {
            let ids = vec![json!(Digest::of(&archive())); 129];
            let mut it = config(layout, json!({"rootfs": {"type": "layers", "diff_ids": ids}}));
            it["layers"] = vec![good.layer.clone(); 129].into();
            it
        }),
        manifest("no layer", Unsupported, |layout, _| {
            let mut it = config(layout, json!({"rootfs": {"type": "layers", "diff_ids": []}}));
            it["layers"] = json!([]);
            it
        }),
        raw_manifest("layers twice", |good| {
            format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}],"layers":[]}}"#, good.config, good.layer)
        }),
        raw_manifest("bytes behind the manifest", |good| format!("{} {{}}", good.manifest())),
        raw_manifest("nested beyond reason", |_| "[".repeat(100_000)),
        raw_manifest("not text", |_| "\0\0\0\0".to_owned()),
        raw_manifest("empty", |_| String::new()),
    ]
}

/// A configuration with `more` in it, as a member of a manifest.
fn config(layout: &TestLayout, more: Value) -> Value {
    let ids = json!([Digest::of(&archive())]);
    let mut it =
        json!({"architecture": arch(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}});
    it.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
    json!({"config": layout.json(CONFIG, &it)})
}

fn raw_manifest(name: &str, text: impl Fn(&Good) -> String + 'static) -> Attack {
    attack("document", name, Integrity, move |layout| {
        let text = text(&Good::new(layout));
        layout.index(&[
            json!({"mediaType": MANIFEST, "digest": layout.blob(text.as_bytes()), "size": text.len()}),
        ]);
    })
}

fn good(layout: &TestLayout) -> Value {
    let good = Good::new(layout);
    layout.json(MANIFEST, &good.manifest())
}

fn platform(it: &Value, os: &str, architecture: &str) -> Value {
    but(it, "platform", json!({"os": os, "architecture": architecture}))
}

fn indexes() -> Vec<Attack> {
    let index = |name, expected, make: fn(&TestLayout) -> Vec<Value>| {
        attack("index", name, expected, move |layout| layout.index(&make(layout)))
    };
    let raw = |name, expected, text: fn(&TestLayout) -> String| {
        attack("index", name, expected, move |layout| {
            fs::write(layout.dir.join("index.json"), text(layout)).expect("index");
        })
    };
    vec![
        index("two images, none named", Input, |layout| {
            vec![good(layout), layout.image(&[(TAR, Tar::default().end(), Tar::default().end())])]
        }),
        index("no image", Input, |_| Vec::new()),
        index("wrong size", Integrity, |layout| vec![but(&good(layout), "size", 3)]),
        index("endless size", Safety, |layout| vec![but(&good(layout), "size", u64::MAX)]),
        index("larger than a manifest may be", Safety, |layout| vec![but(&good(layout), "size", 5 << 20)]),
        index("unknown media type", Unsupported, |layout| {
            vec![but(&good(layout), "mediaType", "text/plain")]
        }),
        index("manifest said to be an index", Safety, |layout| vec![but(&good(layout), "mediaType", INDEX)]),
        index("missing manifest", Integrity, |layout| {
            vec![but(&good(layout), "digest", json!(Digest::of(b"none")))]
        }),
        index("manifest whose digest is a path", Integrity, |layout| {
            vec![but(&good(layout), "digest", "sha256:../../../canary/file")]
        }),
        index("no image for this machine", Unsupported, |layout| {
            let other = platform(&good(layout), "linux", "s390x");
            vec![layout.json(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other]}))]
        }),
        index("two images for this machine", Input, |layout| {
            let one = platform(&good(layout), "linux", arch());
            let two = layout.image(&[(TAR, Tar::default().end(), Tar::default().end())]);
            let two = platform(&two, "linux", arch());
            vec![
                layout.json(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [one, two]})),
            ]
        }),
        index("an index that names itself, in a way", Safety, |layout| {
            let mut it = platform(&good(layout), "linux", arch());
            for _ in 0..5 {
                let inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [it]});
                it = platform(&layout.json(INDEX, &inner), "linux", arch());
            }
            vec![it]
        }),
        index("layers in an index in the index", Safety, |layout| {
            let it = platform(&good(layout), "linux", arch());
            let both = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [it], "layers": []});
            vec![layout.json(INDEX, &both)]
        }),
        raw("layers in the index", Safety, |layout| {
            json!({"schemaVersion": 2, "manifests": [good(layout)], "layers": []}).to_string()
        }),
        raw("a manifest in the place of the index", Safety, |layout| {
            Good::new(layout).manifest().to_string()
        }),
        raw("5 MiB", Safety, |layout| {
            format!("{}{}", json!({"schemaVersion": 2, "manifests": [good(layout)]}), " ".repeat(5 << 20))
        }),
        raw("manifests twice", Integrity, |layout| {
            let good = good(layout);
            format!(r#"{{"schemaVersion":2,"manifests":[{good}],"manifests":[]}}"#)
        }),
        raw("nested beyond reason", Integrity, |_| "{\"a\":".repeat(100_000)),
        raw("cut", Integrity, |layout| {
            let text = json!({"schemaVersion": 2, "manifests": [good(layout)]}).to_string();
            text[..text.len() - 2].to_owned()
        }),
    ]
}

/// Layouts in which files are not what they seem (E8).
fn on_disk() -> Vec<Attack> {
    fn blob(layout: &TestLayout, digest: &Value) -> std::path::PathBuf {
        layout.dir.join("blobs/sha256").join(digest.as_str().expect("digest").trim_start_matches("sha256:"))
    }
    let with_good = |name, expected, change: fn(&TestLayout, &Value)| {
        attack("layout", name, expected, move |layout| {
            let manifest = good(layout);
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
        with_good("layer that is a link to what never ends", Safety, |layout, _| {
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
        with_good("oci-layout that is none", Integrity, |layout, _| {
            fs::write(layout.dir.join("oci-layout"), "1.0.0").expect("write");
        }),
        with_good("no oci-layout", Integrity, |layout, _| {
            fs::remove_file(layout.dir.join("oci-layout")).expect("remove");
        }),
        with_good("layer of the same length and other bytes", Integrity, |layout, _| {
            let path = blob(layout, &json!(Digest::of(&archive())));
            let mut bytes = fs::read(&path).expect("read");
            bytes[520] ^= 1;
            fs::write(path, bytes).expect("write");
        }),
        with_good("manifest of the same length and other bytes", Integrity, |layout, digest| {
            let path = blob(layout, digest);
            let text = fs::read_to_string(&path)
                .expect("read")
                .replace("\"schemaVersion\":2", "\"schemaVersion\":3");
            fs::write(path, text).expect("write");
        }),
    ]
}

/// What looks like an attack, and is none for us: layers are unpacked each for itself, and never over one another.
pub fn harmless() -> Vec<(&'static str, Make)> {
    fn layers(archives: Vec<Vec<u8>>) -> Make {
        in_layout(move |layout| {
            let layers: Vec<_> = archives.iter().map(|it| (TAR, it.clone(), it.clone())).collect();
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
            "link to the layer's own root and out",
            layers(vec![tar().symlink("a", "/").symlink("b", up).end()]),
        ),
        (
            "bytes of a layer in its descriptor",
            in_layout(|layout| {
                let good = Good::new(layout);
                let mut it = good.manifest();
                it["layers"][0]["data"] = json!("bGllcw==");
                it["layers"][0]["urls"] = json!(["file:///etc/passwd"]);
                layout.index(&[layout.json(MANIFEST, &it)]);
            }),
        ),
        (
            "annotations of paths and escapes",
            in_layout(|layout| {
                let mut it = good(layout);
                it["annotations"] = json!({
                    "org.opencontainers.image.ref.name": "../../../canary/\u{1b}[2J",
                    "org.opencontainers.image.title": "/etc/passwd",
                });
                layout.index(&[it]);
            }),
        ),
    ]
}

fn fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("fifo");
}
