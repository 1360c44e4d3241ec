//! Exchange of images with skopeo, umoci and podman in both directions. Digests are unchanged.
#![allow(clippy::print_stderr, reason = "skipped tests")]

mod common;

use invarlock_error::Kind;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use invarlock_images::{Digest, Policy, RootfsOptions, Store};
use serde_json::{Value, json};

/// Whether the tool is installed.
fn is_installed(tool: &str) -> bool {
    let installed = Command::new(tool).arg("--version").output().is_ok();
    if !installed {
        eprintln!("SKIPPED exchange with {tool}: it is not installed");
    }
    installed
}

/// Runs a tool and returns its output.
fn tool(program: &str, args: &[&str]) -> Vec<u8> {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn skopeo(from: &str, to: &str) {
    // skopeo compresses layers unless digests must be preserved, which the Docker format does not support.
    let keep = if to.starts_with("docker-archive:") { "--format=v2s2" } else { "--preserve-digests" };
    tool("skopeo", &["--insecure-policy", "copy", "--quiet", keep, from, to]);
}

/// Digest and content of the manifest as skopeo reads them.
fn manifest_by_skopeo(image: &str) -> (Digest, Value) {
    let manifest = tool("skopeo", &["inspect", "--raw", image]);
    (Digest::of(&manifest), serde_json::from_slice(&manifest).expect("manifest"))
}

/// Creates a layout with an image of three layers, each with another compression, that add, replace and remove files.
fn create_layout(dir: &Path) -> String {
    let layers: Vec<(&str, Vec<u8>, Vec<u8>)> = [
        (TAR, Tar::default().dir("d/").file("d/a", "one").file("d/b", "one").symlink("l", "d/a").end()),
        (GZIP, Tar::default().file("d/.wh.b", "").file("d/a", "two").hardlink("d/c", "d/a").end()),
        (ZSTD, Tar::default().file("e/.wh..wh..opq", "").file("e/f", "three").end()),
    ]
    .into_iter()
    .map(|(kind, archive)| {
        let blob = match kind {
            GZIP => gzip(&archive),
            ZSTD => zstd(&archive),
            _ => archive.clone(),
        };
        (kind, blob, archive)
    })
    .collect();
    let layout = TestLayout::new(&dir.join("by-hand"));
    let mut image = layout.image(&layers);
    image["annotations"] = json!({"org.opencontainers.image.ref.name": "it"});
    layout.index(&[image]);
    format!("oci:{}:it", layout.dir.display())
}

fn store(dir: &Path) -> Store {
    Store::open(&dir.join("store")).expect("store")
}

fn import(store: &Store, from: &str, name: &str) -> Digest {
    let imported = store
        .import(&reference(from), Some(name), Policy::default(), &|_| {})
        .unwrap_or_else(|error| panic!("{from}: {error}"));
    assert_eq!(imported.reference, name);
    store
        .rootfs(&store.resolve(&reference(name)).expect("resolved"), RootfsOptions::default())
        .expect("rootfs");
    imported.manifest_digest
}

fn export(store: &Store, name: &str, to: &str) -> Digest {
    store.export(&reference(name), &reference(to), &|_| {}).unwrap_or_else(|error| panic!("{to}: {error}"))
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[test]
fn export_and_import_keep_digests() {
    let dir = scratch();
    let one = store(dir.path());
    let digest = import(&one, &create_layout(dir.path()), "it:1");
    let (layout, archive, docker) =
        (path(dir.path(), "layout"), path(dir.path(), "archive.tar"), path(dir.path(), "docker.tar"));
    for to in [format!("oci:{layout}:it"), format!("oci-archive:{archive}:it")] {
        assert_eq!(export(&one, "it:1", &to), digest);
        let other = Store::open(&dir.path().join("other")).expect("store");
        assert_eq!(import(&other, &to, "it:1"), digest, "{to}");
        assert_eq!(import(&other, &format!("{to}@{digest}"), "it:2"), digest, "{to}");
        fs::remove_dir_all(other.root()).expect("remove");
    }
    assert_eq!(fs::read_dir(&layout).expect("list").count(), 3, "blobs, index and version, but no lock");
    // A second export gives the same bytes. An existing archive is not replaced.
    let again = path(dir.path(), "again.tar");
    export(&one, "it:1", &format!("oci-archive:{again}:it"));
    assert_eq!(fs::read(&again).expect("read"), fs::read(&archive).expect("read"));
    let refused = one.export(&reference("it:1"), &reference(&format!("oci-archive:{again}")), &|_| {});
    assert!(matches!(refused, Err(error) if error.kind() == Kind::Input));
    let foreign =
        one.export(&reference("it:1"), &reference(&format!("oci:{}", dir.path().display())), &|_| {});
    assert!(matches!(foreign, Err(error) if error.kind() == Kind::Input), "a directory that is not a layout");

    export(&one, "it:1", &format!("docker-archive:{docker}:it:1"));
    let (before, after) =
        (one.resolve(&reference("it:1")), one.resolve(&reference(&format!("docker-archive:{docker}:it:1"))));
    let (before, after) = (before.expect("before"), after.expect("after"));
    assert_eq!(before.config_digest, after.config_digest);
    let ids = |image: &invarlock_images::ResolvedImage| {
        image.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&before), ids(&after));
    let once = import(&one, &format!("docker-archive:{docker}"), "it:3");
    assert_eq!(
        import(&one, &format!("docker-archive:{docker}@{once}"), "it:4"),
        once,
        "one image, one digest"
    );
    // Without a name, the image is imported by digest and gets no name from the archive.
    let names = one.list().expect("list").len();
    let imported =
        one.import(&reference(&format!("oci-archive:{archive}:it")), None, Policy::default(), &|_| {});
    assert_eq!(imported.expect("imported").reference, digest.to_string());
    assert_eq!(one.list().expect("list").len(), names, "the image exists already");
    assert!(one.verify(None, false).expect("verify").iter().all(|checked| checked.problem.is_none()));
    let left: Vec<PathBuf> =
        fs::read_dir(dir.path()).expect("list").map(|entry| entry.expect("entry").path()).collect();
    assert!(left.iter().all(|path| !path.to_string_lossy().contains(".tmp-")), "{left:?}");
}

#[test]
fn exchange_with_skopeo_keeps_digests() {
    if !is_installed("skopeo") {
        return;
    }
    let dir = scratch();
    let store = store(dir.path());
    let original = create_layout(dir.path());
    let digest = import(&store, &original, "it:1");
    let (layout, archive, docker) =
        (path(dir.path(), "layout"), path(dir.path(), "archive.tar"), path(dir.path(), "docker.tar"));
    for to in [format!("oci:{layout}:it"), format!("oci-archive:{archive}:it")] {
        export(&store, "it:1", &to);
        assert_eq!(manifest_by_skopeo(&to).0, digest, "{to}");
        let copy = format!("oci:{}:it", path(dir.path(), "copy"));
        skopeo(&to, &copy);
        assert_eq!(manifest_by_skopeo(&copy).0, digest, "{to}");
        fs::remove_dir_all(path(dir.path(), "copy")).expect("remove");
    }
    export(&store, "it:1", &format!("docker-archive:{docker}:it:1"));
    let image = store.resolve(&reference("it:1")).expect("resolved");
    let (_, manifest) = manifest_by_skopeo(&format!("docker-archive:{docker}:it:1"));
    assert_eq!(manifest["config"]["digest"], json!(image.config_digest));
    let ids: Vec<Value> = image.layers.iter().map(|layer| json!(layer.diff_id)).collect();
    assert_eq!(
        manifest["layers"]
            .as_array()
            .expect("layers")
            .iter()
            .map(|layer| layer["digest"].clone())
            .collect::<Vec<_>>(),
        ids
    );

    let theirs = [
        ("oci", path(dir.path(), "their-layout")),
        ("oci-archive", path(dir.path(), "their-archive.tar")),
        ("docker-archive", path(dir.path(), "their-docker.tar")),
    ];
    for (kind, place) in theirs {
        let to = format!("{kind}:{place}:it");
        let to = if kind == "docker-archive" { format!("{to}:1") } else { to };
        // skopeo writes no zstd layers in the Docker format, so its source is an archive with uncompressed layers.
        skopeo(
            &if kind == "docker-archive" {
                format!("docker-archive:{docker}:it:1")
            } else {
                original.clone()
            },
            &to,
        );
        let image = store.resolve(&reference(&to)).unwrap_or_else(|error| panic!("{to}: {error}"));
        match kind {
            "docker-archive" => {
                let (_, manifest) = manifest_by_skopeo(&to);
                assert_eq!(json!(image.config_digest), manifest["config"]["digest"]);
                import(&store, &to, "their:1");
            }
            _ => {
                assert_eq!(image.manifest_digest, manifest_by_skopeo(&to).0);
                assert_eq!(import(&store, &to, "their:1"), digest, "{to}");
            }
        }
    }
}

#[test]
fn exchange_with_umoci_keeps_digests() {
    if !is_installed("umoci") {
        return;
    }
    let dir = scratch();
    let store = store(dir.path());
    let layout = path(dir.path(), "umoci");
    tool("umoci", &["init", "--layout", &layout]);
    let image = format!("{layout}:it");
    tool("umoci", &["new", "--image", &image]);
    for (i, archive) in [
        Tar::default().dir("d/").file("d/a", "one").file("d/b", "one").end(),
        Tar::default().dir("d/").file("d/.wh.b", "").file("d/c", "two").end(),
    ]
    .into_iter()
    .enumerate()
    {
        let file = path(dir.path(), &format!("{i}.tar"));
        fs::write(&file, archive).expect("write");
        tool("umoci", &["raw", "add-layer", "--image", &image, &file]);
    }
    let digest = import(&store, &format!("oci:{image}"), "it:1");
    let to = path(dir.path(), "exported");
    assert_eq!(export(&store, "it:1", &format!("oci:{to}:it")), digest);
    let list = String::from_utf8(tool("umoci", &["ls", "--layout", &to])).expect("text");
    assert_eq!(list.trim(), "it");
    let unpacked = path(dir.path(), "unpacked");
    tool("umoci", &["raw", "unpack", "--rootless", "--image", &format!("{to}:it"), &unpacked]);
    let mut names: Vec<_> = fs::read_dir(format!("{unpacked}/d"))
        .expect("list")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "c"]);
    // A layer that umoci adds to an exported image can be imported.
    let more = path(dir.path(), "2.tar");
    fs::write(&more, Tar::default().file("e", "three").end()).expect("write");
    tool("umoci", &["raw", "add-layer", "--image", &format!("{to}:it"), &more]);
    assert_ne!(import(&store, &format!("oci:{to}:it"), "it:2"), digest);
    assert_eq!(store.resolve(&reference("it:2")).expect("resolved").layers.len(), 3);
}

#[test]
fn exchange_with_podman_keeps_digests() {
    if !is_installed("podman") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED exchange with podman: a store in another directory requires root");
    }
    let dir = scratch();
    let store = store(dir.path());
    import(&store, &create_layout(dir.path()), "it:1");
    let image = store.resolve(&reference("it:1")).expect("resolved");
    let (root, run) = (path(dir.path(), "podman"), path(dir.path(), "podman-run"));
    let podman = |args: &[&str]| {
        let all = [&["--root", &root, "--runroot", &run, "--storage-driver", "vfs"][..], args].concat();
        String::from_utf8(tool("podman", &all)).expect("text").trim().to_owned()
    };
    for (kind, name) in [("oci-archive", "archive.tar"), ("docker-archive", "docker.tar")] {
        let file = path(dir.path(), name);
        let tag = if kind == "oci-archive" { "it" } else { "it:1" };
        export(&store, "it:1", &format!("{kind}:{file}:{tag}"));
        podman(&["load", "--quiet", "--input", &file]);
        let id = podman(&["images", "--quiet", "--no-trunc"]);
        assert_eq!(
            id,
            image.config_digest.to_string(),
            "{kind}: the image id is the digest of the configuration"
        );
        let saved = path(dir.path(), &format!("saved-{name}"));
        podman(&["save", "--quiet", "--format", kind, "--output", &saved, id.trim_start_matches("sha256:")]);
        let theirs = store.resolve(&reference(&format!("{kind}:{saved}"))).expect("resolved");
        let ids = |image: &invarlock_images::ResolvedImage| {
            image.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&theirs), ids(&image), "{kind}");
        assert_eq!(theirs.config_digest, image.config_digest, "{kind}");
        import(&store, &format!("{kind}:{saved}"), "saved:1");
        podman(&["rmi", "--force", "--all"]);
    }
}
