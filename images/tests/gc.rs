//! Tagging, removing, garbage collection, verification and its levels.

mod common;

use invarlock_error::Kind;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::*;
use invarlock_images::{
    Digest, Level, Policy, Reference, RegistryName, ResolvedImage, RootfsOptions, Store, Verify,
};
use serde_json::json;

fn evaluator_image(dir: &Path, store: &Store, content: &str, name: &str) -> ResolvedImage {
    let path = dir.join("evaluator");
    fs::write(&path, content).expect("evaluator");
    store.build_measure_image(&path, name).expect("built");
    let image = store.resolve(&reference(name)).expect("resolved");
    store.rootfs(&image, RootfsOptions::default()).expect("rootfs");
    image
}

fn options(verify: Verify) -> RootfsOptions {
    RootfsOptions { verify, ..RootfsOptions::default() }
}

/// Changes a byte and restores the modification time, as an attacker would.
fn flip_byte(path: &Path) {
    let before = fs::metadata(path).expect("metadata");
    let mut bytes = fs::read(path).expect("read");
    bytes[0] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
    fs::write(path, bytes).expect("write");
    fs::set_permissions(path, before.permissions()).expect("mode");
    let file = fs::File::open(path).expect("open");
    file.set_modified(before.modified().expect("time")).expect("time");
}

#[test]
fn gc_frees_objects_without_a_tag() {
    let dir = scratch();
    let store = Store::open(&dir.path().join("store")).expect("store");
    let one = evaluator_image(dir.path(), &store, "one", "a:1");
    let two = evaluator_image(dir.path(), &store, "two", "b:1");
    assert_eq!(store.tag(&reference("a:1"), "a:2").expect("tag"), one.manifest_digest);
    assert_eq!(store.tag(&Reference::Digest(two.manifest_digest), "b:2").expect("tag"), two.manifest_digest);
    assert!(matches!(store.tag(&reference("a:1"), "no tag:1"), Err(error) if error.kind() == Kind::Input));
    assert!(matches!(store.tag(&reference("none:1"), "a:3"), Err(error) if error.kind() == Kind::Input));
    let names = || store.list().expect("list").into_iter().map(|image| image.reference).collect::<Vec<_>>();
    assert_eq!(names(), ["a:1", "a:2", "b:1", "b:2"]);
    assert_eq!(store.gc(false).expect("gc"), store.gc(true).expect("gc"), "nothing to free");

    assert_eq!(store.remove(&reference("a:1")).expect("rm"), ["a:1"]);
    assert!(matches!(store.remove(&reference("a:1")), Err(error) if error.kind() == Kind::Input));
    assert!(store.gc(true).expect("gc").blobs.is_empty(), "another tag refers to it");
    assert_eq!(store.remove(&Reference::Digest(one.manifest_digest)).expect("rm"), ["a:2"]);
    let would = store.gc(true).expect("gc");
    assert_eq!((would.blobs.len(), would.trees.len(), would.in_use.len()), (3, 1, 0));
    assert!(would.bytes > 0);
    assert_eq!(store.gc(false).expect("gc"), would, "as the dry run reports");
    assert_eq!(store.gc(false).expect("gc").bytes, 0);
    assert_eq!(names(), ["b:1", "b:2"]);
    store.rootfs(&two, RootfsOptions::default()).expect("the other image is complete");
    assert!(store.verify(None, false).expect("verify").iter().all(|checked| checked.problem.is_none()));
}

#[test]
fn gc_keeps_objects_in_use() {
    let dir = scratch();
    let store = Store::open(&dir.path().join("store")).expect("store");
    let image = evaluator_image(dir.path(), &store, "one", "a:1");
    let rootfs = store.rootfs(&image, RootfsOptions::default()).expect("rootfs");
    store.remove(&reference("a:1")).expect("rm");
    let freed = Store::open(store.root()).expect("another").gc(false).expect("gc");
    assert_eq!((freed.blobs.len(), freed.trees.len(), freed.in_use.len()), (3, 0, 1));
    assert!(rootfs.layers[0].join("invarlock-evaluator").exists());
    let root = rootfs.layers[0].clone();
    drop(rootfs);
    assert_eq!(store.gc(false).expect("gc").trees.len(), 1);
    assert!(!root.exists());
}

#[test]
fn verify_reports_corrupt_objects_and_repairs_extracted_layers() {
    let dir = scratch();
    let store = Store::open(&dir.path().join("store")).expect("store");
    let image = evaluator_image(dir.path(), &store, "one", "a:1");
    let root = store.rootfs(&image, RootfsOptions::default()).expect("rootfs").layers[0].clone();
    let problems = |repair| -> Vec<_> {
        let all = store.verify(None, repair).expect("verify");
        assert_eq!(all.len(), 5, "an image, three blobs, an extracted layer: {all:?}");
        all.into_iter()
            .filter(|checked| checked.problem.is_some() || checked.repaired)
            .map(|checked| (checked.kind, checked.repaired))
            .collect()
    };
    assert_eq!(problems(false), []);
    flip_byte(&root.join("invarlock-evaluator"));
    assert_eq!(problems(false), [("tree", false)]);
    assert_eq!(problems(true), [("tree", true)]);
    assert_eq!(problems(false), []);
    let blob = store.root().join("blobs/sha256").join(image.layers[0].digest.hex());
    flip_byte(&blob);
    assert_eq!(problems(false), [("blob", false)]);
    flip_byte(&root.join("invarlock-evaluator"));
    assert_eq!(
        problems(true),
        [("blob", false), ("tree", false)],
        "the layer cannot be repaired without its blob"
    );
    let one = store.verify(Some(&reference("a:1")), false).expect("verify");
    assert!(one.iter().any(|checked| checked.problem.is_some()), "{one:?}");
}

#[test]
fn repair_removes_an_altered_layer_that_no_image_uses() {
    let dir = scratch();
    let store = Store::open(&dir.path().join("store")).expect("store");
    let layers = ["one", "two"].map(|name| {
        let image = evaluator_image(dir.path(), &store, name, &format!("{name}:1"));
        let layer = store.rootfs(&image, RootfsOptions::default()).expect("rootfs").layers[0].clone();
        flip_byte(&layer.join("invarlock-evaluator"));
        layer
    });
    // `rm` removes only the name: blobs and the extracted layer stay.
    store.remove(&reference("one:1")).expect("remove");
    let layers_of = |repair| -> Vec<_> {
        let all = store.verify(None, repair).expect("verify");
        let layers = all.into_iter().filter(|checked| checked.kind == "tree");
        let mut states: Vec<_> =
            layers.map(|layer| (layer.problem.is_some(), layer.repaired, layer.removed)).collect();
        states.sort_unstable();
        states
    };
    assert_eq!(layers_of(false), [(true, false, false), (true, false, false)]);
    assert_eq!(layers_of(true), [(false, false, true), (false, true, false)]);
    assert_eq!(layers_of(false), [(false, false, false)]);
    assert_eq!(layers.map(|layer| layer.exists()), [false, true]);
}

#[test]
fn quick_verification_detects_changes_and_accepts_new_stamps() {
    let dir = scratch();
    let store = Store::open(&dir.path().join("store")).expect("store");
    let image = evaluator_image(dir.path(), &store, "one", "a:1");
    let level = |verify| store.rootfs(&image, options(verify)).map(|rootfs| rootfs.level);
    let root = store.rootfs(&image, RootfsOptions::default()).expect("rootfs").layers[0].clone();
    let program = root.join("invarlock-evaluator");
    assert_eq!(level(Verify::Auto).expect("auto"), Level::Full, "a small image is always verified in full");
    assert_eq!(level(Verify::Full).expect("full"), Level::Full);
    assert_eq!(level(Verify::Quick).expect("quick"), Level::Quick);
    // A changed stamp without changed bytes causes one full verification.
    fs::File::open(&program).expect("open").set_modified(std::time::SystemTime::now()).expect("time");
    assert_eq!(level(Verify::Quick).expect("touched"), Level::Full);
    assert_eq!(level(Verify::Quick).expect("again"), Level::Quick);
    // Restored from a copy: other inodes, the same bytes.
    let copy = root.with_file_name("copy");
    assert!(std::process::Command::new("cp").arg("-a").args([&root, &copy]).status().expect("cp").success());
    fs::remove_dir_all(&root).expect("remove");
    fs::rename(&copy, &root).expect("rename");
    assert_eq!(level(Verify::Quick).expect("restored"), Level::Full);
    assert_eq!(level(Verify::Quick).expect("again"), Level::Quick);

    let assert_rejected = |what: &str| {
        for verify in [Verify::Quick, Verify::Full] {
            assert!(
                matches!(level(verify), Err(error) if error.kind() == Kind::Integrity),
                "{what}, {verify:?}"
            );
        }
    };
    flip_byte(&program);
    assert_rejected("a byte, with the old time");
    flip_byte(&program);
    assert_eq!(level(Verify::Quick).expect("restored"), Level::Full);
    fs::write(root.join("etc/ld.so.preload"), "x").expect("extra");
    assert_rejected("an extra file");
    fs::remove_file(root.join("etc/ld.so.preload")).expect("remove");
    assert_eq!(level(Verify::Quick).expect("restored"), Level::Full);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).expect("mode");
    assert_rejected("a mode");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o555)).expect("mode");
    assert_eq!(level(Verify::Quick).expect("restored"), Level::Full);
    let hidden = rustix::fs::open(root.join("etc"), rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())
        .expect("open");
    rustix::fs::fsetxattr(&hidden, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
        .expect("attribute");
    assert_rejected("an attribute that overlayfs reads");
    rustix::fs::fremovexattr(&hidden, "user.overlay.opaque").expect("attribute");
    // Stamps are not evidence: modified stamps only cause a full verification.
    fs::write(root.with_file_name("stamps"), "altered").expect("stamps");
    assert_eq!(level(Verify::Quick).expect("stamps"), Level::Full);
    assert_eq!(level(Verify::Quick).expect("again"), Level::Quick);
    for text in ["fsverity", "fs-verity"] {
        assert_eq!(text.parse::<Verify>().expect("known"), Verify::FsVerity);
    }
    assert!(matches!("none".parse::<Verify>(), Err(error) if error.kind() == Kind::Input));
}

#[test]
fn pulled_image_is_found_by_name_and_by_index() {
    let dir = scratch();
    let layout = TestLayout::new(&dir.path().join("layout"));
    let archive = Tar::default().file("a", "one").end();
    let mut own = layout.image(&[(GZIP, gzip(&archive), archive)]);
    own["platform"] = json!({"os": "linux", "architecture": arch()});
    let other = json!({"mediaType": MANIFEST, "digest": Digest::of(b"other"), "size": 5, "platform": {"os": "linux", "architecture": "s390x"}});
    let index =
        layout.json(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, own]}));
    layout.index(std::slice::from_ref(&index));
    let store = Store::open(&dir.path().join("store")).expect("store");
    let registry = DirectoryRegistry(layout.dir);
    let name = |text: &str| RegistryName::parse(text).expect("name");
    let pull = |text: &str| store.pull(&name(text), &registry, None, Some(Policy::default()), &|_, _| {});
    let pulled = pull("docker://host.example/team/it:1").expect("pull");
    assert_eq!(pulled.reference, "host.example/team/it:1");
    assert_eq!(json!(pulled.index_digest), index["digest"]);
    let manifest = pulled.manifest_digest;
    let by_index = format!("host.example/team/it@{}", index["digest"].as_str().expect("digest"));
    for text in [
        "host.example/team/it:1",
        "docker://host.example/team/it:1",
        &by_index,
        &format!("docker://{by_index}"),
    ] {
        let image = store.resolve(&Reference::parse(text).expect(text)).expect(text);
        assert_eq!(image.manifest_digest, manifest, "{text}");
    }
    let lie = format!("host.example/team/it:1@{}", Digest::of(b"lie"));
    assert!(
        matches!(store.resolve(&Reference::parse(&lie).expect("reference")), Err(error) if error.kind() == Kind::Integrity)
    );
    assert!(matches!(pull(&lie), Err(error) if error.kind() == Kind::Integrity));
    assert!(matches!(
        pull("host.example/team/it@sha256:0000000000000000000000000000000000000000000000000000000000000000"),
        Err(error) if matches!(error.kind(), Kind::Input | Kind::Integrity)
    ));
    // The index is kept as long as the image that was selected from it.
    assert_eq!(store.gc(false).expect("gc").blobs, Vec::<String>::new());
    // Export to another store and push to another registry keep the digest.
    let file = dir.path().join("image.tar").display().to_string();
    let archive = Reference::parse(&format!("oci-archive:{file}:it")).expect("reference");
    let from = Reference::parse("host.example/team/it:1").expect("reference");
    assert_eq!(store.export(&from, &archive, &|_| {}).expect("export"), manifest);
    let second = Store::open(&dir.path().join("second")).expect("store");
    let imported = second.import(&archive, Some("it:2"), Policy::default(), &|_| {}).expect("import");
    assert_eq!(imported.manifest_digest, manifest);
    let to = DirectoryRegistry(TestLayout::new(&dir.path().join("other")).dir);
    let sent = second.push(
        &Reference::parse("it:2").expect("reference"),
        &name("other.example/it:3"),
        &to,
        &|_, _| {},
    );
    assert_eq!(sent.expect("push"), manifest);
    let moved = Reference::parse(&format!("oci:{}:3", to.0.display())).expect("reference");
    assert_eq!(second.resolve(&moved).expect("moved").manifest_digest, manifest);
    store.remove(&Reference::parse(&by_index).expect("reference")).expect("rm");
    assert_eq!(store.list().expect("list"), []);
    assert_eq!(store.gc(false).expect("gc").blobs.len(), 4, "manifest, config, layer and index");
}
