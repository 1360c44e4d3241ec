//! What is missing, damaged or there twice: found by whoever looks, in nobody else's way, and mended as the error says.

mod common;

use invarlock_error::Kind;
use std::fs;
use std::path::PathBuf;

use common::*;
use invarlock_images::{Checked, Digest, Policy, Reference, RegistryName, RootfsOptions, Store, Verify};
use serde_json::{Value, json};

fn reference(text: &str) -> Reference {
    Reference::parse(text).expect("reference")
}

struct Place {
    dir: invarlock_security::SecureTempDir,
    layout: TestLayout,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let dir = scratch();
        let layout = TestLayout::new(&dir.path().join("layout"));
        let store = Store::open(&dir.path().join("store")).expect("store");
        Self { dir, layout, store }
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.store.root().join("blobs/sha256").join(digest.hex())
    }

    fn pull(&self, name: &str) -> invarlock_images::Result<invarlock_images::Pulled> {
        let name = RegistryName::parse(name).expect("name");
        let registry = Directory(self.layout.dir.clone());
        self.store.pull(&name, &registry, None, Some(Policy::default()), &|_, _| {})
    }

    fn problems(&self, repair: bool) -> Vec<Checked> {
        let mut all = self.store.verify(None, repair).expect("verify");
        all.retain(|it| it.problem.is_some() || it.repaired);
        all
    }

    fn rootfs(&self, name: &str) -> invarlock_images::Result<invarlock_images::VerifiedRootfs> {
        let image = self.store.resolve(&reference(name))?;
        self.store.rootfs(&image, RootfsOptions { verify: Verify::Full, ..RootfsOptions::default() })
    }
}

impl Place {
    /// An index with an image of one layer for this machine in the layout, and its descriptor.
    fn index_of(&self, layer: &[u8], note: &str) -> Value {
        let mut image = self.layout.image(&[(TAR, layer.to_vec(), layer.to_vec())]);
        image["platform"] = json!({"os": "linux", "architecture": arch()});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [image], "annotations": {"note": note}});
        let index = self.layout.json(INDEX, &index);
        self.layout.index(std::slice::from_ref(&index));
        index
    }
}

fn file(content: &str) -> Vec<u8> {
    Tar::default().file("a", content).end()
}

#[test]
fn a_layer_that_comes_twice_packed_differently_is_pulled_whole_and_mounted_once() {
    let place = Place::new();
    let (low, empty) = (file("low"), Tar::default().end());
    let other = zstd(&empty);
    let layers = [
        (GZIP, gzip(&empty), empty.clone()),
        (GZIP, gzip(&low), low.clone()),
        (ZSTD, other.clone(), empty.clone()),
        (GZIP, gzip(&low), low),
    ];
    place.layout.index(&[place.layout.image(&layers)]);
    place.pull("docker://host.example/it:1").expect("pull");
    assert!(place.blob(&Digest::of(&other)).exists(), "both blobs of one tree are there");
    assert_eq!(place.problems(false), []);
    let rootfs = place.rootfs("host.example/it:1").expect("rootfs");
    // Of two alike the upper one: the empty tree is the third layer, the file's the fourth.
    let has_file = |it: &PathBuf| it.join("a").exists();
    assert_eq!(rootfs.layers.iter().map(has_file).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_blob_that_is_missing_is_found() {
    let place = Place::new();
    let layer = file("one");
    place.index_of(&layer, "");
    let pulled = place.pull("docker://host.example/it:1").expect("pull");
    for digest in [Digest::of(&layer), pulled.index_digest.expect("index")] {
        let bytes = fs::read(place.blob(&digest)).expect("blob");
        fs::remove_file(place.blob(&digest)).expect("rm");
        let problems = place.problems(false);
        let missing = |it: &Checked| it.problem.as_ref().is_some_and(|why| why.contains("missing"));
        assert!(problems.iter().any(|it| it.name == digest.to_string() && missing(it)), "{problems:?}");
        fs::write(place.blob(&digest), bytes).expect("write");
    }
    assert_eq!(place.problems(false), []);
}

#[test]
fn an_image_of_two_indexes_is_found_by_both() {
    let place = Place::new();
    let layer = file("one");
    let mut names = Vec::new();
    for note in ["monday", "tuesday"] {
        let index = place.index_of(&layer, note);
        let name = format!("docker://host.example/it@{}", index["digest"].as_str().expect("digest"));
        place.pull(&name).expect("pull");
        names.push(name);
    }
    let found = |what: &str| {
        for name in &names {
            place.store.resolve(&reference(name)).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    };
    found("pulled");
    place.store.tag(&reference(&names[0]), "keep:1").expect("tag");
    assert_eq!(place.store.gc(false).expect("gc").blobs, Vec::<String>::new());
    found("named");
    let listed = place.store.list().expect("list");
    assert_eq!(listed.len(), 2, "by its digest and its name: {listed:?}");
    assert_eq!(place.store.remove(&reference(&names[1])).expect("rm").len(), 2);
    assert_eq!(place.store.list().expect("list"), []);
}

/// An evaluator that says what it is made of would take a build of it: the artifact is made by hand.
fn attach(place: &Place, image: &Digest) -> (Digest, Digest) {
    let put = |bytes: &[u8]| {
        fs::write(place.blob(&Digest::of(bytes)), bytes).expect("blob");
        json!({"digest": Digest::of(bytes), "size": bytes.len()})
    };
    let of = |mut it: Value, kind: &str| {
        it["mediaType"] = kind.into();
        it
    };
    let bill = br#"{"bomFormat":"CycloneDX","components":[],"dependencies":[]}"#;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.cyclonedx+json",
        "config": of(put(b"{}"), "application/vnd.oci.empty.v1+json"),
        "layers": [of(put(bill), "application/vnd.cyclonedx+json")],
        "subject": {"mediaType": MANIFEST, "digest": image, "size": 1},
    })
    .to_string();
    let mut listed = of(put(manifest.as_bytes()), MANIFEST);
    listed["artifactType"] = "application/vnd.cyclonedx+json".into();
    let path = place.store.root().join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).expect("index")).expect("json");
    index["manifests"].as_array_mut().expect("list").insert(0, listed);
    fs::write(path, index.to_string()).expect("index");
    (Digest::of(manifest.as_bytes()), Digest::of(bill))
}

#[test]
fn a_damaged_bill_of_materials_is_in_nobodys_way_and_goes() {
    for which in [0, 1] {
        let place = Place::new();
        for name in ["one:1", "two:1"] {
            let layer = file(name);
            place.layout.index(&[place.layout.image(&[(TAR, layer.clone(), layer)])]);
            let from = place.layout.reference();
            place.store.import(&from, Some(name), Policy::default(), &|_| {}).expect("import");
        }
        let digest = |name: &str| place.store.resolve(&reference(name)).expect("image").manifest_digest;
        let parts: [Digest; 2] = attach(&place, &digest("one:1")).into();
        attach(&place, &digest("two:1"));
        place.store.sbom(&reference("one:1")).expect("as attached");
        fs::write(place.blob(&parts[which]), "damaged").expect("write");
        assert!(!place.problems(false).is_empty(), "it is found");
        // The same bytes, where that is the bill: then nobody has one.
        assert_eq!(place.store.sbom(&reference("two:1")).is_ok(), which == 0);
        place.store.sbom(&reference("one:1")).expect_err("damaged");
        place.store.gc(false).expect("gc");
        assert_eq!(place.problems(false), [], "it went");
        assert!(
            matches!(place.store.sbom(&reference("one:1")), Err(error) if error.kind() == Kind::Unsupported)
        );
        place.rootfs("one:1").expect("one");
        place.rootfs("two:1").expect("two");
    }
}

#[test]
fn a_seal_that_is_missing_or_empty_is_mended_as_the_error_says() {
    for empty in [false, true] {
        let place = Place::new();
        let layer = file("one");
        place.layout.index(&[place.layout.image(&[(TAR, layer.clone(), layer.clone())])]);
        let from = place.layout.reference();
        place.store.import(&from, Some("one:1"), Policy::default(), &|_| {}).expect("import");
        let seal = place.store.root().join(format!("trees/sha256-{}.seal", Digest::of(&layer).hex()));
        fs::remove_file(&seal).expect("rm");
        if empty {
            fs::write(&seal, "").expect("write");
        }
        let error = place.rootfs("one:1").expect_err("damaged");
        assert!(
            error.kind() == Kind::Integrity
                && error.hint().is_some_and(|hint| hint.contains("verify --repair")),
            "{error}"
        );
        assert_eq!(place.problems(true).len(), 1);
        place.rootfs("one:1").expect("repaired");
    }
}

#[test]
fn garbage_behind_a_layer_that_is_refused_does_not_fill_the_disk() {
    let place = Place::new();
    let said = |size: u64| {
        let (digest, diff) = (Digest::of(b"never"), Digest::of(b"read"));
        let blob = fs::File::create(place.layout.dir.join("blobs/sha256").join(digest.hex())).expect("blob");
        blob.set_len(size).expect("a hole");
        std::io::Write::write_all(&mut &blob, b"this is no archive").expect("blob");
        let config = place.layout.config(&[diff]);
        let layers = [json!({"mediaType": TAR, "digest": digest, "size": size})];
        place.layout.index(&[place.layout.json(
            MANIFEST,
            &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}),
        )]);
        let told = std::sync::atomic::AtomicU64::new(0);
        let count = |more| _ = told.fetch_add(more, std::sync::atomic::Ordering::Relaxed);
        let from = place.layout.reference();
        let error = place.store.import(&from, None, Policy::default(), &count).expect_err("garbage");
        (error, told.into_inner())
    };
    let (error, read) = said(8 << 30);
    assert!(matches!(error.kind(), Kind::Integrity | Kind::Safety), "{error}");
    assert!(read < 1 << 30, "{read} bytes were read");
    let (error, read) = said(100 << 30);
    assert!(error.kind() == Kind::Safety && error.message().contains("are allowed"), "{error}");
    assert_eq!(read, 0);
    drop(place.dir);
}

#[test]
fn who_verifies_does_not_see_what_others_tidy_up() {
    let place = Place::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let store = Store::open(place.store.root()).expect("another");
            for i in 0..40 {
                let layer = file(&"some of it".repeat(10_000 + i));
                place.layout.index(&[place.layout.image(&[(GZIP, gzip(&layer), layer)])]);
                let from = place.layout.reference();
                store.import(&from, Some("it:1"), Policy::default(), &|_| {}).expect("import");
                store.remove(&reference("it:1")).expect("rm");
                store.gc(false).expect("gc");
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            assert_eq!(place.problems(true), []);
            place.store.list().expect("list");
        }
    });
}
