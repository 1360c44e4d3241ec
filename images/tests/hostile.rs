//! Hostile archives and layouts (`corpus`), as root and as an ordinary user. None is accepted, and nothing outside the store is changed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tables and skipped tests")]

mod common;
mod corpus;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use common::*;
use corpus::{Expected, kind};
use invarlock_images::{Digest, Error, Policy, RootfsOptions, SpecialFilePolicy, Store, VerifiedRootfs};

/// Creates a directory that no image may change, with every kind of file.
fn create_canary(dir: &Path) {
    fs::create_dir_all(dir.join("canary/directory")).expect("canary");
    fs::write(dir.join("canary/file"), "alive").expect("canary");
    fs::write(dir.join("canary/directory/closed"), "alive").expect("canary");
    fs::set_permissions(dir.join("canary/directory/closed"), fs::Permissions::from_mode(0o600))
        .expect("canary");
    std::os::unix::fs::symlink("file", dir.join("canary/link")).expect("canary");
    fs::hard_link(dir.join("canary/file"), dir.join("canary/name")).expect("canary");
}

/// The state of everything below `dir` except store and layout: names, modes, owners, links, times and bytes.
fn state(dir: &Path) -> String {
    let mut names: Vec<_> =
        fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry").path()).collect();
    names.sort();
    let mut all = String::new();
    for path in names {
        if ["store", "layout"].iter().any(|name| path.ends_with(name)) {
            continue;
        }
        let metadata = fs::symlink_metadata(&path).expect("metadata");
        let what = match () {
            () if metadata.is_dir() => state(&path),
            () if metadata.is_symlink() => format!("{:?}", fs::read_link(&path).expect("link")),
            () => Digest::of(&fs::read(&path).expect("bytes")).to_string(),
        };
        let times = (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
        all += &format!(
            "{} {:o} {} {} {times:?} {what}\n",
            path.display(),
            metadata.mode(),
            metadata.uid(),
            metadata.nlink()
        );
    }
    all
}

fn attempt(
    dir: &Path,
    create: &dyn Fn(&Path) -> invarlock_images::Reference,
) -> Result<VerifiedRootfs, Error> {
    let reference = create(dir);
    let store = Store::open(&dir.join("store"))?;
    store.rootfs(&store.resolve(&reference)?, RootfsOptions::default())
}

/// The objects in the store that an empty store does not have.
fn left_in(store: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for (dir, known) in [("trees", &["empty"][..]), ("blobs/sha256", &[])] {
        for entry in fs::read_dir(store.join(dir)).into_iter().flatten() {
            let name = entry.expect("entry").file_name().to_string_lossy().into_owned();
            if !known.contains(&name.as_str()) {
                left.push(format!("{dir}/{name}"));
            }
        }
    }
    left
}

#[test]
fn rejects_every_attack_of_the_corpus() {
    let who = if rustix::process::geteuid().is_root() { "root" } else { "user" };
    let attacks = corpus::attacks();
    assert!(attacks.len() >= 60);
    let mut failed = Vec::new();
    for attack in &attacks {
        let dir = scratch();
        create_canary(dir.path());
        let before = state(dir.path());
        let verdict = match attempt(dir.path(), &attack.create) {
            Ok(_) => "accepted".to_owned(),
            Err(error) if kind(&error) != Some(attack.expected) => {
                format!("not {:?}: {error:?}", attack.expected)
            }
            Err(_) if state(dir.path()) != before => "changed something outside the store".to_owned(),
            Err(_) => match left_in(&dir.path().join("store")) {
                left if left.is_empty() => String::new(),
                left => format!("left {left:?}"),
            },
        };
        let shown = if verdict.is_empty() { "held" } else { verdict.as_str() };
        println!(
            "{who} {:<10} {:<62} {:<11} {shown}",
            attack.class,
            attack.name,
            format!("{:?}", attack.expected)
        );
        if !verdict.is_empty() {
            failed.push(format!("{} / {}: {verdict}", attack.class, attack.name));
        }
    }
    println!("{who}: {} of {} attacks held", attacks.len() - failed.len(), attacks.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    run_again_as_user("rejects_every_attack_of_the_corpus");
}

#[test]
fn harmless_images_are_extracted_inside_the_store() {
    for (name, create) in corpus::harmless() {
        let dir = scratch();
        create_canary(dir.path());
        let before = state(dir.path());
        let rootfs = attempt(dir.path(), &create).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!rootfs.layers.is_empty(), "{name}");
        assert_eq!(state(dir.path()), before, "{name}");
    }
    run_again_as_user("harmless_images_are_extracted_inside_the_store");
}

#[test]
fn devices_and_set_id_bits_follow_the_policy() {
    let archive = Tar::default()
        .raw(b'0', b"su", b"", 0o4755, 1, b"x")
        .raw(b'3', b"null", b"", 0o666, 0, b"")
        .raw(b'6', b"pipe", b"", 0o666, 0, b"")
        .end();
    let dir = scratch();
    let layout = TestLayout::new(&dir.path().join("layout"));
    layout.index(&[layout.image(&[(TAR, archive.clone(), archive)])]);
    let store = Store::open(&dir.path().join("store")).expect("store");
    let attempt = |devices, set_id| {
        let options = RootfsOptions {
            policy: Policy { devices, set_id, ..Policy::default() },
            ..RootfsOptions::default()
        };
        store.rootfs(&store.resolve(&layout.reference()).expect("resolved"), options)
    };
    use SpecialFilePolicy::{Drop, Refuse};
    for (devices, set_id) in [(Refuse, Drop), (Drop, Refuse), (Refuse, Refuse)] {
        assert_eq!(kind(&attempt(devices, set_id).expect_err("refused")), Some(Expected::Safety));
    }
    let root = attempt(Drop, Drop).expect("dropped").layers[0].clone();
    let names: Vec<_> =
        fs::read_dir(&root).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(names, ["su"]);
    assert_eq!(fs::metadata(root.join("su")).expect("su").mode() & 0o7777, 0o755);
    // The record of the extracted layer contains what was dropped.
    for (devices, set_id) in [(Refuse, Drop), (Drop, Refuse)] {
        assert_eq!(kind(&attempt(devices, set_id).expect_err("refused")), Some(Expected::Safety));
    }
}
