//! The store: reproducible builds, references, and detection of modified objects.

mod common;

use invarlock_error::Kind;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use common::*;
use invarlock_images::{Digest, Reference, RootfsOptions, Store, Verify};
use serde_json::json;

const NAME: &str = "invarlock-runtime:local";

fn evaluator(path: &Path, content: &str) -> PathBuf {
    fs::write(path, content).expect("evaluator");
    path.to_owned()
}

fn store_with_image(dir: &Path) -> (Store, Digest) {
    let store = Store::open(&dir.join("store")).expect("store");
    let digest =
        store.build_measure_image(&evaluator(&dir.join("evaluator"), "ELF of sorts"), NAME).expect("built");
    (store, digest)
}

fn tag() -> Reference {
    Reference::parse(NAME).expect("reference")
}

#[test]
fn digest_is_independent_of_path_time_and_mode() {
    let (a, b) = (scratch(), scratch());
    let (store, digest) = store_with_image(a.path());
    let other = evaluator(&b.path().join("another name"), "ELF of sorts");
    fs::set_permissions(&other, Permissions::from_mode(0o700)).expect("mode");
    let file = fs::File::options().write(true).open(&other).expect("file");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("time");
    let second = Store::open(&b.path().join("elsewhere")).expect("store");
    assert_eq!(second.build_measure_image(&other, NAME).expect("built"), digest);
    if cfg!(target_arch = "x86_64") {
        let pinned = "sha256:3b560955430d0c62225f1a5940b2c0e46b04b4e13c8b9138c3d446e89cb443d3";
        assert_eq!(digest.to_string(), pinned, "the recipe of the image changed: add it to the changelog");
    }

    let before = fs::metadata(store.root().join("index.json")).expect("index").modified().expect("time");
    assert_eq!(store.build_measure_image(&other, NAME).expect("again"), digest);
    let after = fs::metadata(store.root().join("index.json")).expect("index").modified().expect("time");
    assert_eq!(before, after, "an unchanged image is not written again");

    let changed = store.build_measure_image(&evaluator(&other, "other bytes"), NAME).expect("rebuilt");
    assert_ne!(changed, digest);
    assert_eq!(
        store.resolve(&tag()).expect("resolved").manifest_digest,
        changed,
        "the tag refers to the new image"
    );
    let list = store.list().expect("list");
    assert_eq!((list.len(), list[0].reference.as_str(), list[0].manifest_digest), (1, NAME, changed));
}

#[test]
fn default_image_has_the_documented_content() {
    let dir = scratch();
    let (store, digest) = store_with_image(dir.path());
    let image = store.resolve(&tag()).expect("resolved");
    assert_eq!(
        (image.manifest_digest, image.speaks.as_deref(), image.cwd.as_str()),
        (digest, Some("measure"), "/")
    );
    assert_eq!(image.entrypoint, ["/invarlock-evaluator"]);
    assert_eq!(image.user.as_deref(), Some("65532:65532"));
    assert_eq!(image.layers[0].digest, image.layers[0].diff_id, "the layer is not compressed");
    let rootfs = store.rootfs(&image, RootfsOptions::default()).expect("rootfs");
    assert_eq!(serde_json::to_value(rootfs.level).expect("json"), "full");
    let root = &rootfs.layers[0];
    let mut names: Vec<_> =
        fs::read_dir(root).expect("root").map(|entry| entry.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["dev", "etc", "in", "invarlock-evaluator", "out", "proc", "sys", "tmp"]);
    let mode = fs::metadata(root.join("invarlock-evaluator")).expect("file").permissions().mode() & 0o7777;
    assert_eq!(mode, 0o555);
    store.rootfs(&image, RootfsOptions::default()).expect("again, from the cache");
    let value = serde_json::json!(store.inspect(&tag()).expect("inspect"));
    assert_eq!(
        (&value["layers"][0]["tree"]["state"], &value["config"]["os"]),
        (&json!("verified"), &json!("linux"))
    );
    for reference in [
        digest.to_string(),
        format!("invarlock-runtime@{digest}"),
        format!("{NAME}@{digest}"),
        format!("oci:{}", store.root().display()),
    ] {
        let other = store.resolve(&Reference::parse(&reference).expect("reference")).expect(&reference);
        assert_eq!(other.manifest_digest, digest, "{reference}");
    }
    let lie = Reference::parse(&format!("{NAME}@{}", Digest::of(b"lie"))).expect("reference");
    assert!(
        matches!(store.resolve(&lie), Err(error) if error.kind() == Kind::Integrity),
        "the digest is compared"
    );
    let none = Reference::parse("none:such").expect("reference");
    assert!(matches!(store.resolve(&none), Err(error) if error.kind() == Kind::Input));
    let registry = Reference::parse("ghcr.io/a/b:latest").expect("reference");
    assert!(
        matches!(store.resolve(&registry), Err(error) if error.kind() == Kind::Input && message_and_hint(&error).contains("pull"))
    );
}

#[test]
fn rejects_every_modified_blob() {
    let dir = scratch();
    let (store, _) = store_with_image(dir.path());
    let layer = store.resolve(&tag()).expect("resolved").layers[0].digest.hex();
    let blobs = store.root().join("blobs/sha256");
    let paths: Vec<_> =
        fs::read_dir(&blobs).expect("blobs").map(|entry| entry.expect("entry").path()).collect();
    assert_eq!(paths.len(), 3);
    let attempt = || store.resolve(&tag()).and_then(|image| store.rootfs(&image, RootfsOptions::default()));
    for path in paths {
        let good = fs::read(&path).expect("blob");
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).expect("alter");
            // The blob of a layer is read only for extraction.
            drop(fs::remove_dir_all(store.root().join("trees").join(format!("sha256-{layer}"))));
            assert!(
                matches!(attempt(), Err(error) if error.kind() == Kind::Integrity),
                "{} at {at}",
                path.display()
            );
        }
        fs::write(&path, &good).expect("restore");
        attempt().expect("restored");
        fs::write(&path, &good[1..]).expect("shorten");
        assert!(
            matches!(attempt(), Err(error) if error.kind() == Kind::Integrity),
            "{} shorter",
            path.display()
        );
        fs::remove_file(&path).expect("remove");
        assert!(
            matches!(attempt(), Err(error) if error.kind() == Kind::Integrity),
            "{} missing",
            path.display()
        );
        let copy = dir.path().join("copy");
        fs::write(&copy, &good).expect("subprocess");
        symlink(&copy, &path).expect("link");
        assert!(matches!(attempt(), Err(error) if error.kind() == Kind::Safety), "{} a link", path.display());
        fs::remove_file(&path).expect("remove");
        fs::write(&path, &good).expect("restore");
    }
    attempt().expect("restored");
}

#[test]
fn rejects_modified_store_with_hint_and_build_repairs_it() {
    let dir = scratch();
    let (store, digest) = store_with_image(dir.path());
    let attempt = || store.resolve(&tag()).and_then(|image| store.rootfs(&image, RootfsOptions::default()));
    let root = attempt().expect("sound").layers[0].clone();
    let build = || store.build_measure_image(&dir.path().join("evaluator"), NAME).expect("built anew");
    let flip = |path: &Path| {
        let mode = fs::metadata(path).expect("file").permissions();
        let mut bytes = fs::read(path).expect("bytes");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::set_permissions(path, Permissions::from_mode(0o644)).expect("mode");
        fs::write(path, bytes).expect("alter");
        fs::set_permissions(path, mode).expect("mode");
    };
    let image = store.resolve(&tag()).expect("resolved");
    let blob = |digest: &Digest| store.root().join("blobs/sha256").join(digest.hex());
    let (tree, layer) = (root.parent().expect("tree").to_owned(), image.layers[0].digest);
    let mut outside_index = tree.clone().into_os_string();
    outside_index.push(".seal");
    for path in [
        root.join("invarlock-evaluator"),
        tree.join("record"),
        PathBuf::from(outside_index),
        blob(&image.manifest_digest),
        blob(&image.config_digest),
    ] {
        flip(&path);
        let error = attempt().expect_err("refused");
        assert!(error.kind() == Kind::Integrity, "{}: {error}", path.display());
        assert!(message_and_hint(&error).contains("invarlock runtime image build"), "{error}");
        assert_eq!(build(), digest);
        attempt().unwrap_or_else(|error| panic!("{} after a build: {error}", path.display()));
    }
    // The blob of the layer, which is read only for extraction.
    flip(&blob(&layer));
    fs::remove_dir_all(&tree).expect("tree");
    let error = message_and_hint(&attempt().expect_err("rejected"));
    assert!(error.contains("invarlock runtime image build"), "{error}");
    build();
    attempt().expect("after a build");
    flip(&blob(&layer));
    build();
    fs::remove_dir_all(&tree).expect("tree");
    attempt().expect("a build replaces the blob of an extracted layer");
    // Links in place of the blob and of the extracted layer.
    fs::remove_file(blob(&layer)).expect("blob");
    symlink("/dev/null", blob(&layer)).expect("link");
    fs::rename(&tree, dir.path().join("moved")).expect("tree");
    symlink(dir.path().join("moved"), &tree).expect("link");
    assert!(attempt().is_err());
    build();
    attempt().expect("after a build");
    // A descriptor with the correct digest and a wrong size.
    let index = store.root().join("index.json");
    let text = fs::read_to_string(&index).expect("index");
    fs::write(&index, text.replace("\"size\":", "\"size\":1")).expect("index");
    assert!(message_and_hint(&attempt().expect_err("rejected")).contains("invarlock runtime image"));
    build();
    attempt().expect("after a build");
    let left: Vec<_> = fs::read_dir(store.root().join("trees")).expect("trees").collect();
    assert_eq!(left.len(), 3, "modified objects are removed: {left:?}");
}

/// Overwrites a read-only file, as its owner can.
fn write_over(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("mode");
    fs::write(path, bytes).expect("write");
    fs::set_permissions(path, Permissions::from_mode(0o555)).expect("mode");
}

/// Enabling fs-verity gives the owner write permission for a moment, and the process may be killed in this moment.
#[test]
fn write_permission_left_by_interrupted_fs_verity_is_removed() {
    let dir = scratch();
    let (store, _) = store_with_image(dir.path());
    let image = store.resolve(&tag()).expect("resolved");
    let attempt = |verify| store.rootfs(&image, RootfsOptions { verify, ..RootfsOptions::default() });
    let program = attempt(Verify::Full).expect("sound").layers[0].join("invarlock-evaluator");
    let change = |mode| fs::set_permissions(&program, Permissions::from_mode(mode)).expect("mode");
    for verify in [Verify::Full, Verify::Quick] {
        change(0o755);
        attempt(verify).expect("unchanged content");
        assert_eq!(fs::metadata(&program).expect("file").permissions().mode() & 0o7777, 0o555);
        for mode in [0o575, 0o557, 0o775, 0o655, 0o355, 0o1555, 0o4755] {
            change(mode);
            assert!(matches!(attempt(verify), Err(error) if error.kind() == Kind::Integrity), "{mode:o}");
        }
    }
}

#[test]
fn detects_every_change_of_an_extracted_layer() {
    let dir = scratch();
    let (store, _) = store_with_image(dir.path());
    let image = store.resolve(&tag()).expect("resolved");
    let root = store.rootfs(&image, RootfsOptions::default()).expect("rootfs").layers[0].clone();
    let assert_rejected = |what: &str| {
        assert!(
            store
                .rootfs(&image, RootfsOptions::default())
                .is_err_and(|error| matches!(error.kind(), Kind::Integrity | Kind::Safety)),
            "{what}"
        )
    };
    let program = root.join("invarlock-evaluator");
    let good = fs::read(&program).expect("program");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x80;
        write_over(&program, &bad);
        assert_rejected("a byte");
    }
    write_over(&program, &good);
    store.rootfs(&image, RootfsOptions::default()).expect("restored");
    fs::write(root.join("etc/ld.so.preload"), "x").expect("extra");
    assert_rejected("an extra file");
    fs::remove_file(root.join("etc/ld.so.preload")).expect("remove");
    fs::create_dir(root.join("extra")).expect("extra");
    assert_rejected("an extra directory");
    fs::remove_dir(root.join("extra")).expect("remove");
    fs::set_permissions(&program, Permissions::from_mode(0o4755)).expect("mode");
    assert_rejected("a mode");
    fs::set_permissions(&program, Permissions::from_mode(0o555)).expect("mode");
    fs::remove_dir(root.join("etc")).expect("remove");
    assert_rejected("a missing directory");
    symlink("/", root.join("etc")).expect("link");
    assert_rejected("a directory made a link");
    fs::remove_file(root.join("etc")).expect("remove");
    fs::create_dir(root.join("etc")).expect("dir");
    fs::set_permissions(root.join("etc"), Permissions::from_mode(0o755)).expect("mode");
    store.rootfs(&image, RootfsOptions::default()).expect("restored");
    let record = root.with_file_name("record");
    let text = fs::read_to_string(&record).expect("record");
    fs::write(&record, text.replace("\"size\":12", "\"size\":13")).expect("record");
    assert_rejected("the record");
}

#[test]
fn image_is_selected_by_platform_or_digest() {
    let archive = Tar::default().file("a", "x").end();
    let dir = scratch();
    let layout = TestLayout::new(&dir.path().join("layout"));
    let store = Store::open(&dir.path().join("store")).expect("store");
    let good = layout.image(&[(TAR, archive.clone(), archive)]);
    let other = layout.image(&[(TAR, Tar::default().end(), Tar::default().end())]);
    let resolve = |manifests: &[serde_json::Value]| {
        layout.index(manifests);
        store.resolve(&layout.reference()).map(|image| json!(image.manifest_digest))
    };
    let error = resolve(&[good.clone(), other.clone()]).expect_err("two").to_string();
    let digest_of =
        |descriptor: &serde_json::Value| descriptor["digest"].as_str().expect("digest").to_owned();
    assert!(error.contains(&digest_of(&good)) && error.contains(&digest_of(&other)), "{error}");
    let named =
        Reference::parse(&format!("oci:{}@{}", layout.dir.display(), digest_of(&good))).expect("reference");
    assert_eq!(json!(store.resolve(&named).expect("named").manifest_digest), good["digest"]);
    let on = |image: &serde_json::Value, architecture: &str| {
        let mut image = image.clone();
        image["platform"] = json!({"os": "linux", "architecture": architecture});
        image
    };
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [on(&other, "s390x"), on(&good, arch())]});
    assert_eq!(resolve(&[layout.json(INDEX, &index)]).expect("platform"), good["digest"]);
}

#[test]
fn concurrent_builds_and_extractions_agree() {
    let dir = scratch();
    let root = dir.path().join("store");
    let evaluator = evaluator(&dir.path().join("evaluator"), "ELF of sorts");
    let digests: Vec<Digest> = std::thread::scope(|scope| {
        let work = || {
            let store = Store::open(&root).expect("store");
            let digest = store.build_measure_image(&evaluator, NAME).expect("built");
            store
                .rootfs(&store.resolve(&tag()).expect("resolved"), RootfsOptions::default())
                .expect("rootfs");
            digest
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("thread")).collect()
    });
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
    let left = fs::read_dir(root.join("trees")).expect("trees").count();
    assert_eq!(left, 3, "the extracted layer, its seal and the empty layer");
    assert_eq!(Store::open(&root).expect("store").list().expect("list").len(), 1);
}

#[test]
fn leftovers_of_a_killed_extraction_are_removed() {
    let dir = scratch();
    let (store, _) = store_with_image(dir.path());
    fs::create_dir_all(store.root().join("trees/sha256-00.tmp-1/root/x")).expect("left-over");
    store.rootfs(&store.resolve(&tag()).expect("resolved"), RootfsOptions::default()).expect("rootfs");
    assert!(!store.root().join("trees/sha256-00.tmp-1").exists());
}

#[test]
fn rejects_store_that_other_users_can_write() {
    let dir = scratch();
    let root = dir.path().join("store");
    fs::create_dir(&root).expect("dir");
    fs::set_permissions(&root, Permissions::from_mode(0o777)).expect("mode");
    assert!(matches!(Store::open(&root), Err(error) if error.kind() == Kind::Safety));
    let link = dir.path().join("link");
    symlink(&root, &link).expect("link");
    assert!(matches!(Store::open(&link), Err(error) if error.kind() == Kind::Safety));
}

#[test]
fn rejects_invalid_evaluator() {
    let dir = scratch();
    let store = Store::open(&dir.path().join("store")).expect("store");
    let empty = evaluator(&dir.path().join("empty"), "");
    for path in [&empty, dir.path(), &dir.path().join("missing")] {
        assert!(
            matches!(store.build_measure_image(path, NAME), Err(error) if error.kind() == Kind::Input),
            "{}",
            path.display()
        );
    }
    assert!(
        matches!(store.build_measure_image(&empty, "sha256:00"), Err(error) if error.kind() == Kind::Input)
    );
}

/// A store is closed to other users. Another directory, such as `/` or `/tmp`, must not be.
#[test]
fn directory_that_is_not_a_store_is_refused_and_keeps_its_mode() {
    let dir = scratch();
    let other = dir.path().join("other");
    fs::create_dir(&other).expect("directory");
    fs::write(other.join("file"), "content").expect("file");
    fs::set_permissions(&other, Permissions::from_mode(0o755)).expect("mode");
    let error = Store::open(&other).expect_err("not a store");
    assert_eq!(error.kind(), invarlock_images::Kind::Input);
    assert!(error.to_string().contains("is not an image store"), "{error}");
    let mode = fs::metadata(&other).expect("metadata").permissions().mode() & 0o777;
    assert_eq!((mode, fs::read_dir(&other).expect("listed").count()), (0o755, 1));
}
