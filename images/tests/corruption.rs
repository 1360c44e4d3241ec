//! Missing, corrupt, duplicate and concurrently deleted objects are reported by name. The printed hint fixes them without affecting other
//! images.

mod common;

use invarlock_error::Kind;
use std::fs;
use std::path::PathBuf;

use common::*;
use invarlock_images::{Checked, Digest, Policy, RegistryName, RootfsOptions, Store, Verify};
use serde_json::{Value, json};

struct TestStore {
    dir: invarlock_security::SecureTempDir,
    layout: TestLayout,
    store: Store,
}

impl TestStore {
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
        let registry = DirectoryRegistry(self.layout.dir.clone());
        self.store.pull(&name, &registry, None, Some(Policy::default()), &|_, _| {})
    }

    fn problems(&self, repair: bool) -> Vec<Checked> {
        let mut all = self.store.verify(None, repair).expect("verify");
        all.retain(|checked| checked.problem.is_some() || checked.repaired);
        all
    }

    fn rootfs(&self, name: &str) -> invarlock_images::Result<invarlock_images::VerifiedRootfs> {
        let image = self.store.resolve(&reference(name))?;
        self.store.rootfs(&image, RootfsOptions { verify: Verify::Full, ..RootfsOptions::default() })
    }
}

impl TestStore {
    /// Adds an index with an image of one layer for this platform to the layout and returns its descriptor.
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
fn layer_in_two_compressions_is_pulled_twice_and_mounted_once() {
    let test_store = TestStore::new();
    let (low, empty) = (file("low"), Tar::default().end());
    let other = zstd(&empty);
    let layers = [
        (GZIP, gzip(&empty), empty.clone()),
        (GZIP, gzip(&low), low.clone()),
        (ZSTD, other.clone(), empty.clone()),
        (GZIP, gzip(&low), low),
    ];
    test_store.layout.index(&[test_store.layout.image(&layers)]);
    test_store.pull("docker://host.example/it:1").expect("pull");
    assert!(test_store.blob(&Digest::of(&other)).exists(), "both blobs of one layer are stored");
    assert_eq!(test_store.problems(false), []);
    let rootfs = test_store.rootfs("host.example/it:1").expect("rootfs");
    // Of two equal layers the upper one is mounted: the empty layer is the third, the layer with the file the fourth.
    let has_file = |layer: &PathBuf| layer.join("a").exists();
    assert_eq!(rootfs.layers.iter().map(has_file).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn missing_blob_is_reported_by_name() {
    let test_store = TestStore::new();
    let layer = file("one");
    test_store.index_of(&layer, "");
    let pulled = test_store.pull("docker://host.example/it:1").expect("pull");
    for digest in [Digest::of(&layer), pulled.index_digest.expect("index")] {
        let bytes = fs::read(test_store.blob(&digest)).expect("blob");
        fs::remove_file(test_store.blob(&digest)).expect("rm");
        let problems = test_store.problems(false);
        let missing = |checked: &Checked| checked.problem.as_ref().is_some_and(|why| why.contains("missing"));
        assert!(
            problems.iter().any(|checked| checked.name == digest.to_string() && missing(checked)),
            "{problems:?}"
        );
        fs::write(test_store.blob(&digest), bytes).expect("write");
    }
    assert_eq!(test_store.problems(false), []);
}

#[test]
fn image_in_two_indexes_is_found_by_both() {
    let test_store = TestStore::new();
    let layer = file("one");
    let mut names = Vec::new();
    for note in ["monday", "tuesday"] {
        let index = test_store.index_of(&layer, note);
        let name = format!("docker://host.example/it@{}", index["digest"].as_str().expect("digest"));
        test_store.pull(&name).expect("pull");
        names.push(name);
    }
    let assert_found = |what: &str| {
        for name in &names {
            test_store.store.resolve(&reference(name)).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    };
    assert_found("pulled");
    test_store.store.tag(&reference(&names[0]), "keep:1").expect("tag");
    assert_eq!(test_store.store.gc(false).expect("gc").blobs, Vec::<String>::new());
    assert_found("named");
    let listed = test_store.store.list().expect("list");
    assert_eq!(listed.len(), 2, "one image by digest and by name: {listed:?}");
    assert_eq!(test_store.store.remove(&reference(&names[1])).expect("rm").len(), 2);
    assert_eq!(test_store.store.list().expect("list"), []);
}

/// Attaches an SBOM artifact to an image. It is written by hand, because only a real evaluator contains one.
fn attach_sbom(test_store: &TestStore, image: &Digest) -> (Digest, Digest) {
    let store_blob = |bytes: &[u8]| {
        fs::write(test_store.blob(&Digest::of(bytes)), bytes).expect("blob");
        json!({"digest": Digest::of(bytes), "size": bytes.len()})
    };
    let with_type = |mut descriptor: Value, media_type: &str| {
        descriptor["mediaType"] = media_type.into();
        descriptor
    };
    let sbom = br#"{"bomFormat":"CycloneDX","components":[],"dependencies":[]}"#;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.cyclonedx+json",
        "config": with_type(store_blob(b"{}"), "application/vnd.oci.empty.v1+json"),
        "layers": [with_type(store_blob(sbom), "application/vnd.cyclonedx+json")],
        "subject": {"mediaType": MANIFEST, "digest": image, "size": 1},
    })
    .to_string();
    let mut listed = with_type(store_blob(manifest.as_bytes()), MANIFEST);
    listed["artifactType"] = "application/vnd.cyclonedx+json".into();
    let path = test_store.store.root().join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).expect("index")).expect("json");
    index["manifests"].as_array_mut().expect("list").insert(0, listed);
    fs::write(path, index.to_string()).expect("index");
    (Digest::of(manifest.as_bytes()), Digest::of(sbom))
}

#[test]
fn corrupt_sbom_affects_no_other_image_and_is_collected() {
    for which in [0, 1] {
        let test_store = TestStore::new();
        for name in ["one:1", "two:1"] {
            let layer = file(name);
            test_store.layout.index(&[test_store.layout.image(&[(TAR, layer.clone(), layer)])]);
            let from = test_store.layout.reference();
            test_store.store.import(&from, Some(name), Policy::default(), &|_| {}).expect("import");
        }
        let digest = |name: &str| test_store.store.resolve(&reference(name)).expect("image").manifest_digest;
        let parts: [Digest; 2] = attach_sbom(&test_store, &digest("one:1")).into();
        attach_sbom(&test_store, &digest("two:1"));
        test_store.store.sbom(&reference("one:1")).expect("as attached");
        fs::write(test_store.blob(&parts[which]), "damaged").expect("write");
        assert!(!test_store.problems(false).is_empty(), "the corruption is reported");
        // Both images share the blob of the SBOM but not the manifest.
        assert_eq!(test_store.store.sbom(&reference("two:1")).is_ok(), which == 0);
        test_store.store.sbom(&reference("one:1")).expect_err("damaged");
        test_store.store.gc(false).expect("gc");
        assert_eq!(test_store.problems(false), [], "the corrupt artifact is collected");
        assert!(
            matches!(test_store.store.sbom(&reference("one:1")), Err(error) if error.kind() == Kind::Unsupported)
        );
        test_store.rootfs("one:1").expect("one");
        test_store.rootfs("two:1").expect("two");
    }
}

#[test]
fn missing_or_empty_seal_is_repaired_as_the_hint_says() {
    for empty in [false, true] {
        let test_store = TestStore::new();
        let layer = file("one");
        test_store.layout.index(&[test_store.layout.image(&[(TAR, layer.clone(), layer.clone())])]);
        let from = test_store.layout.reference();
        test_store.store.import(&from, Some("one:1"), Policy::default(), &|_| {}).expect("import");
        let seal = test_store.store.root().join(format!("trees/sha256-{}.seal", Digest::of(&layer).hex()));
        fs::remove_file(&seal).expect("rm");
        if empty {
            fs::write(&seal, "").expect("write");
        }
        let error = test_store.rootfs("one:1").expect_err("damaged");
        assert!(
            error.kind() == Kind::Integrity && message_and_hint(&error).contains("verify --repair"),
            "{error}"
        );
        assert_eq!(test_store.problems(true).len(), 1);
        test_store.rootfs("one:1").expect("repaired");
    }
}

#[test]
fn rejected_layer_is_not_read_to_its_declared_size() {
    let test_store = TestStore::new();
    let import_declared = |size: u64| {
        let (digest, diff) = (Digest::of(b"never"), Digest::of(b"read"));
        let blob =
            fs::File::create(test_store.layout.dir.join("blobs/sha256").join(digest.hex())).expect("blob");
        blob.set_len(size).expect("a hole");
        std::io::Write::write_all(&mut &blob, b"this is not an archive").expect("blob");
        let config = test_store.layout.config(&[diff]);
        let layers = [json!({"mediaType": TAR, "digest": digest, "size": size})];
        test_store.layout.index(&[test_store.layout.json(
            MANIFEST,
            &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}),
        )]);
        let progress = std::sync::atomic::AtomicU64::new(0);
        let count = |more| _ = progress.fetch_add(more, std::sync::atomic::Ordering::Relaxed);
        let from = test_store.layout.reference();
        let error = test_store.store.import(&from, None, Policy::default(), &count).expect_err("garbage");
        (error, progress.into_inner())
    };
    let (error, read) = import_declared(8 << 30);
    assert!(matches!(error.kind(), Kind::Integrity | Kind::Safety), "{error}");
    assert!(read < 1 << 30, "{read} bytes were read");
    let (error, read) = import_declared(100 << 30);
    assert!(error.kind() == Kind::Safety, "{error}");
    assert_eq!(read, 0);
    drop(test_store.dir);
}

#[test]
fn verification_ignores_concurrently_collected_objects() {
    let test_store = TestStore::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let store = Store::open(test_store.store.root()).expect("another");
            for i in 0..40 {
                let layer = file(&"some of it".repeat(10_000 + i));
                test_store.layout.index(&[test_store.layout.image(&[(GZIP, gzip(&layer), layer)])]);
                let from = test_store.layout.reference();
                store.import(&from, Some("it:1"), Policy::default(), &|_| {}).expect("import");
                store.remove(&reference("it:1")).expect("rm");
                store.gc(false).expect("gc");
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            assert_eq!(test_store.problems(true), []);
            test_store.store.list().expect("list");
        }
    });
}
