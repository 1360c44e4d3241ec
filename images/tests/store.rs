//! The store: builds that agree, references, and every way to alter what lies in it.

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

fn built(dir: &Path) -> (Store, Digest) {
    let store = Store::open(&dir.join("store")).expect("store");
    let digest =
        store.build_measure_image(&evaluator(&dir.join("evaluator"), "ELF of sorts"), NAME).expect("built");
    (store, digest)
}

fn tagged() -> Reference {
    Reference::parse(NAME).expect("reference")
}

#[test]
fn same_bytes_same_digest_whatever_the_path_time_and_mode() {
    let (a, b) = (scratch(), scratch());
    let (store, digest) = built(a.path());
    let other = evaluator(&b.path().join("another name"), "ELF of sorts");
    fs::set_permissions(&other, Permissions::from_mode(0o700)).expect("mode");
    let file = fs::File::options().write(true).open(&other).expect("file");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("time");
    let second = Store::open(&b.path().join("elsewhere")).expect("store");
    assert_eq!(second.build_measure_image(&other, NAME).expect("built"), digest);
    if cfg!(target_arch = "x86_64") {
        let pinned = "sha256:3b560955430d0c62225f1a5940b2c0e46b04b4e13c8b9138c3d446e89cb443d3";
        assert_eq!(digest.to_string(), pinned, "the image's recipe changed: say so in the changelog");
    }

    let before = fs::metadata(store.root().join("index.json")).expect("index").modified().expect("time");
    assert_eq!(store.build_measure_image(&other, NAME).expect("again"), digest);
    let after = fs::metadata(store.root().join("index.json")).expect("index").modified().expect("time");
    assert_eq!(before, after, "nothing to do, nothing written");

    let changed = store.build_measure_image(&evaluator(&other, "other bytes"), NAME).expect("rebuilt");
    assert_ne!(changed, digest);
    assert_eq!(store.resolve(&tagged()).expect("resolved").manifest_digest, changed, "the tag moved");
    let list = store.list().expect("list");
    assert_eq!((list.len(), list[0].reference.as_str(), list[0].manifest_digest), (1, NAME, changed));
}

#[test]
fn the_default_image_is_what_the_design_says() {
    let dir = scratch();
    let (store, digest) = built(dir.path());
    let image = store.resolve(&tagged()).expect("resolved");
    assert_eq!(
        (image.manifest_digest, image.speaks.as_deref(), image.cwd.as_str()),
        (digest, Some("measure"), "/")
    );
    assert_eq!(image.entrypoint, ["/invarlock-evaluator"]);
    assert_eq!(image.user.as_deref(), Some("65532:65532"));
    assert_eq!(image.layers[0].digest, image.layers[0].diff_id, "no compressor");
    let rootfs = store.rootfs(&image, RootfsOptions::default()).expect("rootfs");
    assert_eq!(serde_json::to_value(rootfs.level).expect("json"), "full");
    let root = &rootfs.layers[0];
    let mut names: Vec<_> =
        fs::read_dir(root).expect("root").map(|it| it.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["dev", "etc", "in", "invarlock-evaluator", "out", "proc", "sys", "tmp"]);
    let mode = fs::metadata(root.join("invarlock-evaluator")).expect("file").permissions().mode() & 0o7777;
    assert_eq!(mode, 0o555);
    store.rootfs(&image, RootfsOptions::default()).expect("once more, from the tree");
    let value = store.inspect(&tagged()).expect("inspect");
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
        "a digest is compared, not believed"
    );
    let none = Reference::parse("none:such").expect("reference");
    assert!(matches!(store.resolve(&none), Err(error) if error.kind() == Kind::Input));
    let registry = Reference::parse("ghcr.io/a/b:latest").expect("reference");
    assert!(
        matches!(store.resolve(&registry), Err(message) if message.kind() == Kind::Input && message.hint().is_some_and(|hint| hint.contains("pull it first")))
    );
}

#[test]
fn every_blob_altered_in_turn_is_refused() {
    let dir = scratch();
    let (store, _) = built(dir.path());
    let layer = store.resolve(&tagged()).expect("resolved").layers[0].digest.hex();
    let blobs = store.root().join("blobs/sha256");
    let paths: Vec<_> = fs::read_dir(&blobs).expect("blobs").map(|it| it.expect("blob").path()).collect();
    assert_eq!(paths.len(), 3);
    let attempt =
        || store.resolve(&tagged()).and_then(|image| store.rootfs(&image, RootfsOptions::default()));
    for path in paths {
        let good = fs::read(&path).expect("blob");
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).expect("alter");
            // A layer's bytes count when it is unpacked; later the tree's do.
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
        fs::write(&copy, &good).expect("copy");
        symlink(&copy, &path).expect("link");
        assert!(matches!(attempt(), Err(error) if error.kind() == Kind::Safety), "{} a link", path.display());
        fs::remove_file(&path).expect("remove");
        fs::write(&path, &good).expect("restore");
    }
    attempt().expect("restored");
}

#[test]
fn an_altered_store_is_refused_with_its_remedy_and_a_build_heals_it() {
    let dir = scratch();
    let (store, digest) = built(dir.path());
    let attempt =
        || store.resolve(&tagged()).and_then(|image| store.rootfs(&image, RootfsOptions::default()));
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
    let image = store.resolve(&tagged()).expect("resolved");
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
        assert!(
            error.hint().is_some_and(|hint| hint.contains("run `invarlock runtime image build`")),
            "{error}"
        );
        assert_eq!(build(), digest);
        attempt().unwrap_or_else(|error| panic!("{} after a build: {error}", path.display()));
    }
    // The layer's blob, which only an unpacking reads.
    flip(&blob(&layer));
    fs::remove_dir_all(&tree).expect("tree");
    let error = attempt().expect_err("refused");
    assert!(error.hint().is_some_and(|hint| hint.contains("run `invarlock runtime image build`")), "{error}");
    build();
    attempt().expect("after a build");
    flip(&blob(&layer));
    build();
    fs::remove_dir_all(&tree).expect("tree");
    attempt().expect("a build replaces the blob of a layer that is unpacked");
    // Things in the way.
    fs::remove_file(blob(&layer)).expect("blob");
    symlink("/dev/null", blob(&layer)).expect("link");
    fs::rename(&tree, dir.path().join("moved")).expect("tree");
    symlink(dir.path().join("moved"), &tree).expect("link");
    assert!(attempt().is_err());
    build();
    attempt().expect("after a build");
    // A descriptor with the right digest and a wrong size.
    let index = store.root().join("index.json");
    let text = fs::read_to_string(&index).expect("index");
    fs::write(&index, text.replace("\"size\":", "\"size\":1")).expect("index");
    assert!(attempt().expect_err("refused").hint().is_some());
    build();
    attempt().expect("after a build");
    let left: Vec<_> = fs::read_dir(store.root().join("trees")).expect("trees").collect();
    assert_eq!(left.len(), 3, "nothing altered stays: {left:?}");
}

/// Writes a read-only file as its owner can.
fn write_over(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("mode");
    fs::write(path, bytes).expect("write");
    fs::set_permissions(path, Permissions::from_mode(0o555)).expect("mode");
}

/// Whoever has the kernel hold a file lets its owner write for a moment (fs-verity), and may be killed in it.
#[test]
fn a_leave_to_write_that_was_left_behind_is_taken_back() {
    let dir = scratch();
    let (store, _) = built(dir.path());
    let image = store.resolve(&tagged()).expect("resolved");
    let attempt = |verify| store.rootfs(&image, RootfsOptions { verify, ..RootfsOptions::default() });
    let program = attempt(Verify::Full).expect("sound").layers[0].join("invarlock-evaluator");
    let change = |mode| fs::set_permissions(&program, Permissions::from_mode(mode)).expect("mode");
    for verify in [Verify::Full, Verify::Quick] {
        change(0o755);
        attempt(verify).expect("as it was");
        assert_eq!(fs::metadata(&program).expect("file").permissions().mode() & 0o7777, 0o555);
        for mode in [0o575, 0o557, 0o775, 0o655, 0o355, 0o1555, 0o4755] {
            change(mode);
            assert!(matches!(attempt(verify), Err(error) if error.kind() == Kind::Integrity), "{mode:o}");
        }
    }
}

#[test]
fn every_change_of_a_tree_is_found() {
    let dir = scratch();
    let (store, _) = built(dir.path());
    let image = store.resolve(&tagged()).expect("resolved");
    let root = store.rootfs(&image, RootfsOptions::default()).expect("rootfs").layers[0].clone();
    let altered = |what: &str| {
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
        altered("a byte");
    }
    write_over(&program, &good);
    store.rootfs(&image, RootfsOptions::default()).expect("restored");
    fs::write(root.join("etc/ld.so.preload"), "x").expect("extra");
    altered("an extra file");
    fs::remove_file(root.join("etc/ld.so.preload")).expect("remove");
    fs::create_dir(root.join("extra")).expect("extra");
    altered("an extra directory");
    fs::remove_dir(root.join("extra")).expect("remove");
    fs::set_permissions(&program, Permissions::from_mode(0o4755)).expect("mode");
    altered("a mode");
    fs::set_permissions(&program, Permissions::from_mode(0o555)).expect("mode");
    fs::remove_dir(root.join("etc")).expect("remove");
    altered("a missing directory");
    symlink("/", root.join("etc")).expect("link");
    altered("a directory made a link");
    fs::remove_file(root.join("etc")).expect("remove");
    fs::create_dir(root.join("etc")).expect("dir");
    fs::set_permissions(root.join("etc"), Permissions::from_mode(0o755)).expect("mode");
    store.rootfs(&image, RootfsOptions::default()).expect("restored");
    let record = root.with_file_name("record");
    let text = fs::read_to_string(&record).expect("record");
    fs::write(&record, text.replace("\"size\":12", "\"size\":13")).expect("record");
    altered("the record");
}

#[test]
fn the_image_for_this_machine_is_chosen_and_two_are_told_apart_by_digest() {
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
    let text = |it: &serde_json::Value| it["digest"].as_str().expect("digest").to_owned();
    assert!(error.contains(&text(&good)) && error.contains(&text(&other)), "{error}");
    let named =
        Reference::parse(&format!("oci:{}@{}", layout.dir.display(), text(&good))).expect("reference");
    assert_eq!(json!(store.resolve(&named).expect("named").manifest_digest), good["digest"]);
    let on = |it: &serde_json::Value, architecture: &str| {
        let mut it = it.clone();
        it["platform"] = json!({"os": "linux", "architecture": architecture});
        it
    };
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [on(&other, "s390x"), on(&good, arch())]});
    assert_eq!(resolve(&[layout.json(INDEX, &index)]).expect("platform"), good["digest"]);
}

#[test]
fn builds_and_unpacks_at_once_agree() {
    let dir = scratch();
    let root = dir.path().join("store");
    let evaluator = evaluator(&dir.path().join("evaluator"), "ELF of sorts");
    let digests: Vec<Digest> = std::thread::scope(|scope| {
        let work = || {
            let store = Store::open(&root).expect("store");
            let digest = store.build_measure_image(&evaluator, NAME).expect("built");
            store
                .rootfs(&store.resolve(&tagged()).expect("resolved"), RootfsOptions::default())
                .expect("rootfs");
            digest
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|it| it.join().expect("thread")).collect()
    });
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
    let left = fs::read_dir(root.join("trees")).expect("trees").count();
    assert_eq!(left, 3, "the tree, its seal and the empty one");
    assert_eq!(Store::open(&root).expect("store").list().expect("list").len(), 1);
}

#[test]
fn what_a_killed_unpack_left_is_swept() {
    let dir = scratch();
    let (store, _) = built(dir.path());
    fs::create_dir_all(store.root().join("trees/sha256-00.tmp-1/root/x")).expect("left-over");
    store.rootfs(&store.resolve(&tagged()).expect("resolved"), RootfsOptions::default()).expect("rootfs");
    assert!(!store.root().join("trees/sha256-00.tmp-1").exists());
}

#[test]
fn a_store_that_others_can_write_is_refused() {
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
fn an_evaluator_that_is_none_is_refused() {
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
