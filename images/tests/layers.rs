//! Stacked layers give a container the files that the image specification and umoci define.
#![allow(clippy::print_stderr, reason = "skipped tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use common::*;
use invarlock_images::{MergeOptions, Reference, RootfsOptions, Store, VerifiedRootfs};

fn tar() -> Tar {
    Tar::default()
}

/// Name, archives of the layers, and expected files.
type Case = (&'static str, Vec<Vec<u8>>, &'static [&'static str]);

/// The cases. An expected name is followed by a slash for a directory, and by `=` and the content for a file.
fn cases() -> Vec<Case> {
    let base = || {
        tar().dir("d/").file("d/a", "1").file("d/b", "1").dir("d/s/").file("d/s/x", "1").file("f", "1").end()
    };
    vec![
        ("one layer", vec![base()], &["d/", "d/a=1", "d/b=1", "d/s/", "d/s/x=1", "f=1"]),
        (
            "a file over a file",
            vec![base(), tar().file("f", "2").end()],
            &["d/", "d/a=1", "d/b=1", "d/s/", "d/s/x=1", "f=2"],
        ),
        (
            "a repeated layer above a changed and an empty one",
            vec![
                base(),
                tar().file(".wh.f", "").file("d/a", "2").file("n", "2").end(),
                tar().end(),
                base(),
                tar().end(),
            ],
            &["d/", "d/a=1", "d/b=1", "d/s/", "d/s/x=1", "f=1", "n=2"],
        ),
        (
            "whiteout of a file",
            vec![base(), tar().file(".wh.f", "").end()],
            &["d/", "d/a=1", "d/b=1", "d/s/", "d/s/x=1"],
        ),
        (
            "whiteout of a full directory",
            vec![base(), tar().file("d/.wh.s", "").end()],
            &["d/", "d/a=1", "d/b=1", "f=1"],
        ),
        (
            "whiteout below an implied directory",
            vec![base(), tar().file("d/.wh.a", "").end()],
            &["d/", "d/b=1", "d/s/", "d/s/x=1", "f=1"],
        ),
        (
            "whiteout and the same file again",
            vec![base(), tar().file(".wh.f", "").end(), tar().file("f", "3").end()],
            &["d/", "d/a=1", "d/b=1", "d/s/", "d/s/x=1", "f=3"],
        ),
        (
            "opaque directory, marked first",
            vec![base(), tar().dir("d/").file("d/.wh..wh..opq", "").file("d/n", "2").end()],
            &["d/", "d/n=2", "f=1"],
        ),
        (
            "opaque directory, marked last",
            vec![base(), tar().file("d/n", "2").file("d/.wh..wh..opq", "").end()],
            &["d/", "d/n=2", "f=1"],
        ),
        ("opaque root", vec![base(), tar().file(".wh..wh..opq", "").file("n", "2").end()], &["n=2"]),
        (
            "opaque root under a layer",
            vec![base(), tar().file(".wh..wh..opq", "").file("n", "2").end(), tar().file("f", "3").end()],
            &["f=3", "n=2"],
        ),
        (
            "a directory over a file",
            vec![base(), tar().dir("f/").file("f/x", "2").end()],
            &["d/", "d/a=1", "d/b=1", "d/s/", "d/s/x=1", "f/", "f/x=2"],
        ),
        ("a file over a directory", vec![base(), tar().file("d", "2").end()], &["d=2", "f=1"]),
        (
            "whiteout and the same name, in one layer",
            vec![base(), tar().file(".wh.f", "").file("f", "2").end()],
            &["d/", "d/a=1", "d/b=1", "d/s/", "d/s/x=1", "f=2"],
        ),
        (
            "the same name and whiteout, in one layer",
            vec![base(), tar().file("f", "2").file(".wh.f", "").end()],
            &["d/", "d/a=1", "d/b=1", "d/s/", "d/s/x=1", "f=2"],
        ),
        (
            "whiteout and the same directory, in one layer",
            vec![base(), tar().file(".wh.d", "").file("d/n", "2").end()],
            &["d/", "d/n=2", "f=1"],
        ),
        (
            "the same directory and whiteout, in one layer",
            vec![base(), tar().file("d/n", "2").file(".wh.d", "").end()],
            &["d/", "d/n=2", "f=1"],
        ),
        ("whiteouts of nothing, alone", vec![tar().file("f", "1").file(".wh.g", "").end()], &["f=1"]),
        (
            "100 layers",
            (0..100).map(|i| tar().file(&format!("d/{}", i % 7), &i.to_string()).end()).collect(),
            &["d/", "d/0=98", "d/1=99", "d/2=93", "d/3=94", "d/4=95", "d/5=96", "d/6=97"],
        ),
    ]
}

/// The files below `root`, as in [`cases`].
fn list_files(root: &Path) -> Vec<String> {
    fn walk(root: &Path, below: &str, all: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(root.join(below)).expect("list") {
            let entry = entry.expect("entry");
            let path = format!("{below}{}", entry.file_name().to_str().expect("name"));
            if entry.file_type().expect("type").is_dir() {
                all.insert(format!("{path}/"), String::new());
                walk(root, &format!("{path}/"), all);
            } else {
                let content = fs::read_to_string(entry.path()).expect("content");
                all.insert(path, format!("={content}"));
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(root, "", &mut all);
    all.into_iter().map(|(path, content)| path + &content).collect()
}

/// Lists the files that a container has: the layers are mounted as a run mounts them, in a new user and mount namespace.
fn list_as_container(layers: &[std::path::PathBuf], dir: &Path) -> Option<Vec<String>> {
    let (mount, copy) = (dir.join("mount"), dir.join("copy"));
    fs::create_dir_all(&mount).expect("mount point");
    let stack: Vec<_> = layers.iter().rev().map(|layer| layer.display().to_string()).collect();
    // The options of a mount fit into one page: a hundred paths of the store do not, so each gets a short name.
    let binds: String = stack
        .iter()
        .enumerate()
        .map(|(i, path)| format!("mkdir /mnt/{i}; mount --bind '{path}' /mnt/{i};\n"))
        .collect();
    let lower = if stack.len() == 1 {
        format!("mount --bind /mnt/0 {}", mount.display())
    } else {
        let names: Vec<_> = (0..stack.len()).map(|i| format!("/mnt/{i}")).collect();
        format!("mount -t overlay overlay -o ro,userxattr,lowerdir={} {}", names.join(":"), mount.display())
    };
    let script = format!(
        "set -e; mount -t tmpfs none /mnt;\n{binds}{lower};\ncp -r {} {}",
        mount.display(),
        copy.display()
    );
    let output = Command::new("unshare").args(["-rm", "sh", "-c", &script]).output().expect("unshare");
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("unshare") {
        eprintln!("SKIPPED layers as a container has them: {error}");
        return None;
    }
    assert!(output.status.success(), "{error}");
    let all = list_files(&copy);
    fs::remove_dir_all(copy).expect("remove");
    Some(all)
}

/// Lists the files of the layers as one directory.
fn list_merged(rootfs: &VerifiedRootfs, dir: &Path) -> Vec<String> {
    let to = dir.join("merged");
    fs::create_dir(&to).expect("a directory");
    merge(rootfs, &to, &[], &[]);
    let all = list_files(&to);
    fs::remove_dir_all(to).expect("remove");
    all
}

fn merge(rootfs: &VerifiedRootfs, to: &Path, below: &[&Path], above: &[&Path]) {
    let options = MergeOptions { below, above, owner: None, progress: &|_| {} };
    rootfs.merge(fs::File::open(to).expect("the directory"), options).expect("merged");
}

/// Lists the files that umoci extracts.
fn list_with_umoci(layout: &Path, dir: &Path) -> Option<Vec<String>> {
    let to = dir.join("umoci");
    let mut command = Command::new("umoci");
    command.args(["raw", "unpack", "--rootless", "--image"]).arg(format!("{}:it", layout.display())).arg(&to);
    match command.output() {
        Err(error) => {
            eprintln!("SKIPPED layers by umoci: {error}");
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let all = list_files(&to);
            fs::remove_dir_all(to).expect("remove");
            Some(all)
        }
    }
}

#[test]
fn stacked_layers_match_the_specification_and_umoci() {
    for (name, archives, expected) in cases() {
        let dir = scratch();
        let layout = TestLayout::new(&dir.path().join("layout"));
        let layers: Vec<_> = archives.iter().map(|archive| (TAR, archive.clone(), archive.clone())).collect();
        let mut image = layout.image(&layers);
        image["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "it"});
        layout.index(&[image]);
        let store = Store::open(&dir.path().join("store")).expect("store");
        let reference = Reference::parse(&format!("oci:{}:it", layout.dir.display())).expect("reference");
        let image = store.resolve(&reference).expect("resolved");
        for _ in 0..2 {
            // First extracted, then from the verified cache.
            let rootfs = store
                .rootfs(&image, RootfsOptions::default())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(list_merged(&rootfs, dir.path()), expected, "{name}, merged");
            if let Some(seen) = list_as_container(&rootfs.layers, dir.path()) {
                assert_eq!(seen, expected, "{name}");
            }
        }
        // umoci 0.4 applies a whiteout also to files of the same layer.
        let differs = name.starts_with("the same") || name.starts_with("opaque directory, marked last");
        if let Some(seen) = (!differs).then(|| list_with_umoci(&layout.dir, dir.path())).flatten() {
            assert_eq!(seen, expected, "{name}, by umoci");
        }
    }
}

#[test]
fn merged_layers_keep_links_modes_and_times_and_follow_no_link() {
    let dir = scratch();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    let layout = TestLayout::new(&dir.path().join("layout"));
    let lower = tar()
        .dir("d/")
        .file("d/a", "1")
        .hardlink("d/b", "d/a")
        .symlink("l", outside.to_str().expect("path"))
        .end();
    // A directory over the link, and a link over a directory: neither leads out of the result.
    let upper = tar().dir("l/").file("l/x", "2").symlink("e", "../../outside").end();
    let layers: Vec<_> =
        [lower, upper].iter().map(|archive| (TAR, archive.clone(), archive.clone())).collect();
    let mut image = layout.image(&layers);
    image["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "it"});
    layout.index(&[image]);
    let store = Store::open(&dir.path().join("store")).expect("store");
    let image = store.resolve(&reference(&format!("oci:{}:it", layout.dir.display()))).expect("resolved");
    let rootfs = store.rootfs(&image, RootfsOptions::default()).expect("extracted");
    let [below, above, to] = ["below", "above", "to"].map(|name| dir.path().join(name));
    for (path, content) in
        [(below.join("d/a"), "0"), (below.join("etc/hosts"), "0"), (above.join("d/p"), "3")]
    {
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a file");
    }
    fs::set_permissions(above.join("d"), fs::Permissions::from_mode(0o750)).expect("mode");
    // A file with a hole is not filled.
    let sparse = fs::File::create(above.join("sparse")).expect("a file");
    sparse.set_len(1 << 30).expect("a hole");
    fs::create_dir(&to).expect("a directory");
    merge(&rootfs, &to, &[&below], &[&above]);
    let metadata = |path: &str| to.join(path).symlink_metadata().expect(path);
    let content = |path: &str| fs::read_to_string(to.join(path)).expect(path);
    assert_eq!(["d/a", "d/b", "d/p", "etc/hosts", "l/x"].map(content), ["1", "1", "3", "0", "2"]);
    assert_eq!((metadata("d/a").ino(), metadata("d/a").nlink()), (metadata("d/b").ino(), 2));
    assert_eq!(metadata("d").permissions().mode() & 0o7777, 0o750);
    assert_eq!(fs::read_link(to.join("e")).expect("a link").to_str(), Some("../../outside"));
    assert!((metadata("sparse").len(), metadata("sparse").blocks() < 64) == (1 << 30, true));
    assert_eq!(fs::read_dir(&outside).expect("the directory outside").count(), 0);
    // What an earlier result left is not overwritten.
    let options = MergeOptions { below: &[], above: &[], owner: None, progress: &|_| {} };
    assert!(rootfs.merge(fs::File::open(&to).expect("the directory"), options).is_err());
}
