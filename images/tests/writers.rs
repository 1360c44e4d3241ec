//! Images as other tools write them: kaniko, ko, BuildKit, containerd, Nix, cargo, Debian and older versions of them.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use common::*;
use invarlock_error::Kind;
use invarlock_images::{
    Digest, Error, Policy, Reference, Result, RootfsOptions, SpecialFilePolicy, Store, VerifiedRootfs,
};
use serde_json::{Value, json};
use std::io::Write as _;

const DOCKER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";

fn tar() -> Tar {
    Tar::default()
}

/// The directory of the only layer.
fn root(rootfs: &VerifiedRootfs) -> PathBuf {
    rootfs.layers.last().expect("layer").clone()
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A layout with an image of `archive` whose configuration has the fields `config`. Fields that are null are left out.
fn with_config(dir: &Path, archive: &[u8], config: &Value) -> TestLayout {
    let layout = TestLayout::new(&dir.join("layout"));
    let mut all = json!({"architecture": arch(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": [Digest::of(archive)]}});
    let members = all.as_object_mut().expect("object");
    members.extend(config.as_object().expect("object").clone());
    members.retain(|_, value| !value.is_null());
    let layer = json!({"mediaType": TAR, "digest": layout.blob(archive), "size": archive.len()});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": layout.json(CONFIG, &all), "layers": [layer]});
    layout.index(&[layout.json(MANIFEST, &manifest)]);
    layout
}

fn resolve_in(dir: &Path, reference: &Reference) -> Result<VerifiedRootfs> {
    let store = Store::open(&dir.join("store"))?;
    store.rootfs(&store.resolve(reference)?, RootfsOptions::default())
}

#[test]
fn leading_slashes_dots_and_empty_names_have_no_effect() {
    let dir = scratch();
    let archive = tar()
        .dir("/")
        .dir("/opt/")
        .file("/opt/kaniko", "1")
        .file("./a/./b", "2")
        .file(".//c", "3")
        .file("d//e", "4")
        .hardlink("/opt/second", "/opt/kaniko")
        .symlink("/bin", "/usr/bin")
        .end();
    let root = root(&extract(dir.path(), &archive).expect("extracted"));
    for (path, content) in [("opt/kaniko", "1"), ("opt/second", "1"), ("a/b", "2"), ("c", "3"), ("d/e", "4")]
    {
        assert_eq!(read(&root, path), content, "{path}");
    }
    assert_eq!(
        fs::read_link(root.join("bin")).expect("link"),
        Path::new("/usr/bin"),
        "targets stay as they are"
    );
}

#[test]
fn blank_owner_and_time_are_zero() {
    for blank in [0, b' '] {
        let dir = scratch();
        let blank_fields =
            |h: &mut [u8]| [108..124, 136..148].into_iter().for_each(|field| h[field].fill(blank));
        let archive = tar().file("a", "x").patched(blank_fields).end();
        let root = root(&extract(dir.path(), &archive).expect("extracted"));
        assert_eq!(fs::metadata(root.join("a")).expect("a").mtime(), 0);
    }
    let no_mode = tar().file("a", "x").patched(|h| h[100..108].fill(0)).end();
    let error = extract(scratch().path(), &no_mode).expect_err("a mode is content");
    assert_eq!(error.kind(), Kind::Integrity);
}

/// `umoci insert` ends a layer with the content of its last file.
#[test]
fn padding_of_the_last_file_may_be_missing() {
    let whole = tar().dir("etc/").file("etc/text", "written").0;
    let content = whole.len() - 512 + "written".len();
    for length in [content, content + 1, whole.len()] {
        let dir = scratch();
        let root = root(&extract(dir.path(), &whole[..length]).expect("extracted"));
        assert_eq!(read(&root, "etc/text"), "written", "{length} of {} bytes", whole.len());
    }
    let error = extract(scratch().path(), &whole[..content - 1]).expect_err("content is missing");
    assert_eq!(error.kind(), Kind::Integrity);
}

#[test]
fn hard_link_to_a_link_is_the_same_link() {
    let dir = scratch();
    let archive =
        tar().symlink("first", "no/where").hardlink("d/second", "first").hardlink("third", "d/second").end();
    let layout = TestLayout::new(&dir.path().join("layout"));
    layout.index(&[layout.image(&[(TAR, archive.clone(), archive)])]);
    // Extracted, and then verified.
    for _ in 0..2 {
        let root = root(&resolve_in(dir.path(), &layout.reference()).expect("rootfs"));
        let inode = |path: &str| fs::symlink_metadata(root.join(path)).expect("metadata").ino();
        assert_eq!((inode("d/second"), inode("third")), (inode("first"), inode("first")));
        assert_eq!(fs::read_link(root.join("third")).expect("link"), Path::new("no/where"));
    }
}

#[test]
fn whiteouts_of_any_type_remove() {
    let dir = scratch();
    let layout = TestLayout::new(&dir.path().join("layout"));
    let lower =
        tar().file("tmp/one", "1").file("tmp/two", "2").file("tmp/three", "3").file("keep", "4").end();
    let upper = tar()
        .file("tmp/.wh.one", "")
        .hardlink("tmp/.wh.two", "tmp/.wh.one")
        .symlink("tmp/.wh.three", "nowhere")
        .end();
    let layers = [lower, upper].map(|archive| (TAR, archive.clone(), archive));
    layout.index(&[layout.image(&layers)]);
    let rootfs = resolve_in(dir.path(), &layout.reference()).expect("rootfs");
    let top = root(&rootfs);
    for name in ["one", "two", "three"] {
        let metadata = fs::symlink_metadata(top.join("tmp").join(name)).expect(name);
        assert_eq!(
            (metadata.mode() & 0o170_000, metadata.rdev()),
            (0o020_000, 0),
            "{name}: no whiteout of overlayfs"
        );
    }
}

#[test]
fn compression_is_read_from_the_content() {
    let archive = tar().file("a", "x").end();
    let docker_gzip = format!("{DOCKER_TAR}.gzip");
    let docker_zstd = format!("{DOCKER_TAR}.zstd");
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    for media_type in [TAR, GZIP, ZSTD, DOCKER_TAR, &docker_gzip, &docker_zstd, foreign, nondistributable] {
        for blob in [archive.clone(), gzip(&archive), zstd(&archive)] {
            let dir = scratch();
            let rootfs = extract_as(dir.path(), media_type, blob, archive.clone());
            assert_eq!(
                read(&root(&rootfs.unwrap_or_else(|error| panic!("{media_type}: {error}"))), "a"),
                "x"
            );
        }
    }
}

/// A frame of `content` with a window of 2^`log` bytes.
fn zstd_with_window(content: &[u8], log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("encoder");
    encoder.window_log(log).expect("window");
    encoder.write_all(content).expect("content");
    encoder.finish().expect("frame")
}

#[test]
fn large_zstd_windows_are_used_one_at_a_time() {
    // In a subprocess, whose peak memory contains nothing else.
    const LAYOUT: &str = "INVARLOCK_TEST_LARGE_WINDOWS";
    if let Some(dir) = std::env::var_os(LAYOUT) {
        let dir = PathBuf::from(dir);
        let layout = TestLayout { dir: dir.join("layout") };
        resolve_in(&dir, &layout.reference()).expect("rootfs");
        // Two windows of 64 MiB alone would be more.
        assert!(peak_memory() < (64 + 40) << 10, "{} KiB", peak_memory());
        return;
    }
    let dir = scratch();
    let layout = TestLayout::new(&dir.path().join("layout"));
    let layers = [1u64, 2, 3].map(|seed| {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()
        };
        let content: Vec<u8> = (0..10 << 20).flat_map(|_| next()).collect();
        let archive = tar().raw(b'0', b"data", b"", 0o644, content.len() as u64, &content).end();
        (ZSTD, zstd_with_window(&archive, 26), archive)
    });
    layout.index(&[layout.image(&layers)]);
    let ran = std::process::Command::new(std::env::current_exe().expect("own program"))
        .args(["--exact", "large_zstd_windows_are_used_one_at_a_time", "--nocapture"])
        .env(LAYOUT, dir.path())
        .output()
        .expect("test");
    assert!(ran.status.success(), "{}", output_text(&ran));
}

#[test]
fn missing_platform_is_that_of_this_machine() {
    let archive = tar().file("a", "x").end();
    for (config, assumed) in [
        (json!({}), false),
        (json!({"architecture": null}), true),
        (json!({"architecture": null, "os": null}), true),
        (json!({"architecture": "", "os": ""}), true),
    ] {
        let dir = scratch();
        let layout = with_config(dir.path(), &archive, &config);
        let store = Store::open(&dir.path().join("store")).expect("store");
        let import = store.import(&layout.reference(), None, Policy::default(), &|_| ());
        assert_eq!(import.expect("imported").platform_assumed, assumed, "{config}");
    }
}

/// An image with the file `name`.
fn image_of(layout: &TestLayout, name: &str) -> Value {
    let archive = tar().file(name, name).end();
    layout.image(&[(TAR, archive.clone(), archive)])
}

#[test]
fn image_of_an_index_is_chosen_as_other_tools_do_and_found_by_digest() {
    let dir = scratch();
    let layout = TestLayout::new(&dir.path().join("layout"));
    let with_variant = |name: &str, variant: Option<&str>| {
        let mut image = image_of(&layout, name);
        image["platform"] = json!({"os": "linux", "architecture": arch()});
        if let Some(variant) = variant {
            image["platform"]["variant"] = json!(variant);
        }
        image
    };
    let images = [with_variant("v9", Some("v9")), with_variant("plain", None)];
    let mut attestation = image_of(&layout, "attestation");
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let [v9, plain] = &images;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [v9, plain, attestation]});
    layout.index(&[layout.json(INDEX, &index)]);
    let plain_root = root(&resolve_in(dir.path(), &layout.reference()).expect("chosen"));
    assert!(plain_root.join("plain").exists());
    // The digests in the index name the others.
    let named = format!("oci:{}@{}", layout.dir.display(), v9["digest"].as_str().expect("digest"));
    assert!(root(&resolve_in(dir.path(), &reference(&named)).expect("named")).join("v9").exists());

    // The same without an index of its own, as older versions of BuildKit write it.
    let mut other = image_of(&layout, "other");
    other["platform"] = json!({"os": "linux", "architecture": "s390x"});
    layout.index(&[other, attestation, images[1].clone()]);
    assert_eq!(root(&resolve_in(dir.path(), &layout.reference()).expect("chosen")), plain_root);
}

#[test]
fn images_of_a_layout_have_full_names() {
    let dir = scratch();
    let layout = TestLayout::new(&dir.path().join("layout"));
    let with = |name: &str, annotations: Value| {
        let mut image = image_of(&layout, name);
        image["annotations"] = annotations;
        image
    };
    let tag = "org.opencontainers.image.ref.name";
    layout.index(&[
        with("skopeo", json!({tag: "docker.io/library/tool:1.2"})),
        with("containerd", json!({tag: "1.3", "io.containerd.image.name": "docker.io/library/tool:1.3"})),
        with("port", json!({tag: "localhost:5000/tool:1.2"})),
    ]);
    for (name, file) in [
        ("docker.io/library/tool:1.2", "skopeo"),
        ("docker.io/library/tool:1.3", "containerd"),
        ("1.3", "containerd"),
        ("localhost:5000/tool:1.2", "port"),
    ] {
        let named = format!("oci:{}:{name}", layout.dir.display());
        assert!(root(&resolve_in(dir.path(), &reference(&named)).expect(name)).join(file).exists(), "{name}");
    }
    let missing = format!("oci:{}:docker.io/library/tool:1.4", layout.dir.display());
    let error = resolve_in(dir.path(), &reference(&missing)).expect_err("missing");
    assert_eq!(error.kind(), Kind::Input, "{error}");
}

#[test]
fn long_runs_of_zeros_are_holes_and_have_a_limit_of_their_own() {
    let archive = tar().file("var/log/lastlog", &"\0".repeat(200 << 20)).end();
    let dir = scratch();
    let rootfs = extract_as(dir.path(), GZIP, gzip(&archive), archive).expect("extracted");
    let lastlog = fs::metadata(root(&rootfs).join("var/log/lastlog")).expect("lastlog");
    assert_eq!((lastlog.len(), lastlog.blocks()), (200 << 20, 0));

    let sparse = |size: &str| {
        let records = [("GNU.sparse.size", size), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "0,8")];
        tar().pax(&records).file("a", "12345678").end()
    };
    let too_long = extract(scratch().path(), &sparse(&(5u64 << 30).to_string())).expect_err("5 GiB");
    assert_eq!(too_long.kind(), Kind::Safety);
    assert!(message_and_hint(&too_long).contains("--no-log-init"), "{}", message_and_hint(&too_long));
    assert!(message_and_hint(&too_long).contains("--layer-size"), "{}", message_and_hint(&too_long));
    let dir = scratch();
    let rootfs = extract(dir.path(), &sparse(&(1u64 << 30).to_string())).expect("1 GiB");
    assert_eq!(fs::metadata(root(&rootfs).join("a")).expect("a").len(), 1 << 30);
}

/// The size that the user allows is remembered for the image: by each of its names, and for no other image with the same layer.
#[test]
fn allowed_size_of_a_layer_is_remembered_for_the_image() {
    let dir = scratch();
    let size = (5u64 << 30).to_string();
    let records =
        [("GNU.sparse.size", size.as_str()), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "0,8")];
    let archive = tar().pax(&records).file("a", "12345678").end();
    let layout = with_config(dir.path(), &archive, &json!({"author": "one"}));
    let other_dir = scratch();
    let other = with_config(other_dir.path(), &archive, &json!({"author": "two"}));
    let store = Store::open(&dir.path().join("store")).expect("store");
    let import = |from: &Reference, name: &str, layer_size| {
        store.import(from, Some(name), Policy { layer_size, ..Policy::default() }, &|_| ())
    };
    for too_small in [None, Some(1), Some(5 << 30).map(|bytes: u64| bytes - 1)] {
        let error = import(&layout.reference(), "a:1", too_small).expect_err("5 GiB");
        assert_eq!(error.kind(), Kind::Safety, "{error}");
        assert!(message_and_hint(&error).contains("--layer-size"), "{}", message_and_hint(&error));
    }
    let allowed = 6 << 30;
    import(&layout.reference(), "a:1", Some(allowed)).expect("allowed");
    store.tag(&reference("a:1"), "b:1").expect("tagged");
    store.remove(&reference("a:1")).expect("removed");
    let image = store.resolve(&reference("b:1")).expect("resolved");
    let rootfs = store.rootfs(&image, RootfsOptions::default()).expect("remembered");
    assert_eq!(rootfs.consent.layer_size, Some(allowed));
    assert_eq!(fs::metadata(root(&rootfs).join("a")).expect("a").len(), 5 << 30);
    drop(rootfs);
    // Another image with the same layer is refused, although its layer is extracted.
    let error = import(&other.reference(), "c:1", None).expect_err("another image");
    assert!(message_and_hint(&error).contains("--layer-size"), "{}", message_and_hint(&error));
    let consent = store.inspect(&reference("b:1")).expect("inspected").consent;
    assert_eq!(serde_json::to_value(consent).expect("JSON"), json!({"layer_size": allowed}));
    // An image that does not need it has none.
    let small_dir = scratch();
    let small = with_config(small_dir.path(), &tar().file("a", "x").end(), &json!({}));
    import(&small.reference(), "d:1", Some(allowed)).expect("small");
    assert!(store.inspect(&reference("d:1")).expect("inspected").consent.is_none());
}

/// The agreement to leave out devices is remembered for the image: by each of its names, and for no other image with the same layer.
#[test]
fn dropped_devices_are_remembered_for_the_image() {
    let dir = scratch();
    let archive = tar()
        .raw(b'3', b"dev/null", b"", 0o666, 0, b"")
        .raw(b'6', b"run/initctl", b"", 0o600, 0, b"")
        .file("a", "x")
        .end();
    let layout = with_config(dir.path(), &archive, &json!({"author": "one"}));
    let store = Store::open(&dir.path().join("store")).expect("store");
    let refused = |error: Error| {
        assert_eq!(error.kind(), Kind::Safety, "{error}");
        assert!(message_and_hint(&error).contains("--drop-devices"), "{}", message_and_hint(&error));
    };
    let import = |name: Option<&str>, devices| {
        let policy = Policy { devices, ..Policy::default() };
        store.import(&layout.reference(), name, policy, &|_| ()).map(|imported| imported.reference)
    };
    refused(import(Some("a:1"), SpecialFilePolicy::Refuse).expect_err("devices"));
    let digest = import(None, SpecialFilePolicy::Drop).expect("imported");
    import(Some("a:1"), SpecialFilePolicy::Drop).expect("imported");
    store.tag(&reference("a:1"), "b:1").expect("tagged");
    store.remove(&reference("a:1")).expect("removed");
    let rootfs = |name: &str| {
        let image = store.resolve(&reference(name)).expect("resolved");
        store.rootfs(&image, RootfsOptions::default())
    };
    for name in ["b:1", &digest] {
        assert_eq!(read(&root(&rootfs(name).expect(name)), "a"), "x");
    }
    // Neither the same image elsewhere nor another image with the same layer is agreed to.
    refused(resolve_in(dir.path(), &layout.reference()).expect_err("an image outside the store"));
    refused(import(Some("c:1"), SpecialFilePolicy::Refuse).expect_err("no agreement in the command"));
    let mut annotated: Value =
        serde_json::from_slice(&fs::read(layout.dir.join("index.json")).expect("index")).expect("index");
    annotated["manifests"][0]["annotations"] = json!({"org.invarlock.devices-dropped": "true"});
    fs::write(layout.dir.join("index.json"), annotated.to_string()).expect("index");
    refused(resolve_in(dir.path(), &layout.reference()).expect_err("an annotation of the image"));
    refused(import(Some("d:1"), SpecialFilePolicy::Refuse).expect_err("an annotation of the image"));
    // Nor is it taken over from an image that needs none.
    let harmless_dir = scratch();
    let harmless = with_config(harmless_dir.path(), &tar().file("a", "x").end(), &json!({}));
    let index = fs::read_to_string(harmless.dir.join("index.json")).expect("index");
    let mut index: Value = serde_json::from_str(&index).expect("index");
    index["manifests"][0]["annotations"] = json!({"org.invarlock.devices-dropped": "true"});
    fs::write(harmless.dir.join("index.json"), index.to_string()).expect("index");
    store.import(&harmless.reference(), Some("f:1"), Policy::default(), &|_| ()).expect("imported");
    let index = fs::read_to_string(dir.path().join("store/index.json")).expect("index");
    let index: Value = serde_json::from_str(&index).expect("index");
    let is_new = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == "f:1";
    let entry = index["manifests"].as_array().expect("images").iter().find(is_new).expect("the image");
    assert_eq!(entry["annotations"].as_object().map(|annotations| annotations.len()), Some(1), "{entry}");
    let other_dir = scratch();
    let other = with_config(other_dir.path(), &archive, &json!({"author": "two"}));
    let import_other = store.import(&other.reference(), Some("e:1"), Policy::default(), &|_| ());
    refused(import_other.expect_err("another image"));
    // The agreement ends with the image.
    for name in ["b:1", &digest] {
        let _ = store.remove(&reference(name));
    }
    refused(import(Some("a:1"), SpecialFilePolicy::Refuse).expect_err("the image was removed"));
}
