//! Properties of every image: extraction restores what was archived, every flipped byte in the store is detected, and memory does not
//! depend on the size.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "skipped tests and figures")]

mod common;

use invarlock_error::Kind;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use invarlock_images::{Digest, Policy, Reference, RootfsOptions, Store, Verify};
use proptest::prelude::*;

/// An entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Directory(u32),
    File(u32, Vec<u8>),
    Symlink(String),
    HardLink(String),
}

/// File trees whose parents are directories, in an order in which they can be extracted; hard links refer to earlier files.
fn file_trees() -> impl Strategy<Value = BTreeMap<String, Node>> {
    let name = "[a-z\u{e0}-\u{ff} ._-]{1,12}"
        .prop_filter("a name of its own", |name| !name.starts_with(".wh.") && name != "." && name != "..");
    let path = prop::collection::vec(name, 1..5);
    let mode = prop::sample::select(vec![0o644, 0o755, 0o600, 0o700, 0o555, 0o444]);
    let thing = prop_oneof![
        2 => mode.clone().prop_map(|mode| Node::Directory(mode | 0o700)),
        5 => (mode, prop::collection::vec(any::<u8>(), 0..2000)).prop_map(|(mode, content)| Node::File(mode | 0o400, content)),
        1 => "[!-~]{1,100}|[a-z]{101,150}".prop_map(Node::Symlink),
        1 => Just(Node::HardLink(String::new())),
    ];
    prop::collection::vec((path, thing), 1..40).prop_map(|all| {
        let mut tree: BTreeMap<String, Node> = BTreeMap::new();
        for (path, thing) in all {
            let parents: Vec<String> = (1..path.len()).map(|end| path[..end].join("/")).collect();
            let blocked = parents
                .iter()
                .any(|parent| tree.get(parent).is_some_and(|node| !matches!(node, Node::Directory(_))));
            let path = path.join("/");
            if blocked || tree.contains_key(&path) {
                continue;
            }
            let thing = match thing {
                Node::HardLink(_) => {
                    let before = |(other, node): (&String, &Node)| {
                        (*other < path && matches!(node, Node::File(..))).then(|| other.clone())
                    };
                    match tree.iter().find_map(before) {
                        Some(target) => Node::HardLink(target),
                        None => continue,
                    }
                }
                other => other,
            };
            for parent in parents {
                tree.entry(parent).or_insert(Node::Directory(0o755));
            }
            tree.insert(path, thing);
        }
        tree
    })
}

fn archive_of(tree: &BTreeMap<String, Node>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, thing) in tree {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        let packed = match thing {
            Node::Directory(mode) => {
                header.set_mode(*mode);
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, format!("{path}/"), std::io::empty())
            }
            Node::File(mode, content) => {
                header.set_mode(*mode);
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, content.as_slice())
            }
            Node::Symlink(target) => {
                header.set_mode(0o777);
                header.set_entry_type(tar::EntryType::Symlink);
                match header.set_link_name_literal(target) {
                    // The literal target: `append_link` would normalize it.
                    Ok(()) => builder.append_data(&mut header, path, std::io::empty()),
                    Err(_) => builder.append_link(&mut header, path, target),
                }
            }
            Node::HardLink(target) => {
                header.set_mode(0o644);
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, path, target)
            }
        };
        packed.unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    builder.into_inner().expect("archive")
}

/// Reads the extracted files.
fn read(root: &Path, below: &str, inodes: &mut BTreeMap<u64, String>, all: &mut BTreeMap<String, Node>) {
    let mut entries: Vec<_> =
        fs::read_dir(root.join(below)).expect("list").map(|entry| entry.expect("entry")).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().into_string().expect("name");
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let metadata = entry.metadata().expect("metadata");
        let mode = metadata.permissions().mode() & 0o7777;
        let thing = if metadata.is_dir() {
            read(root, &path, inodes, all);
            Node::Directory(mode)
        } else if metadata.is_symlink() {
            Node::Symlink(
                fs::read_link(entry.path()).expect("link").into_os_string().into_string().expect("link"),
            )
        } else if let Some(other) = inodes.get(&metadata.ino()) {
            Node::HardLink(other.clone())
        } else {
            inodes.insert(metadata.ino(), path.clone());
            assert_eq!(metadata.mtime(), 1_000_000_000, "{path}");
            Node::File(mode, fs::read(entry.path()).expect("read"))
        };
        all.insert(path, thing);
    }
}

/// Replaces hard links by their files, since it does not matter which name comes first.
fn with_resolved_hard_links(tree: &BTreeMap<String, Node>) -> BTreeMap<String, Node> {
    let resolved = |thing: &Node| match thing {
        Node::HardLink(target) => tree[target].clone(),
        other => other.clone(),
    };
    tree.iter().map(|(path, thing)| (path.clone(), resolved(thing))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn extraction_restores_the_archived_files(tree in file_trees(), kind in 0..3usize) {
        let archive = archive_of(&tree);
        let (kind, blob) = match kind {
            0 => (TAR, archive.clone()),
            1 => (GZIP, gzip(&archive)),
            _ => (ZSTD, zstd(&archive)),
        };
        let dir = scratch();
        let rootfs = extract_as(dir.path(), kind, blob, archive).expect("unpacked");
        let mut found = BTreeMap::new();
        read(rootfs.layers.last().expect("layer"), "", &mut BTreeMap::new(), &mut found);
        prop_assert_eq!(with_resolved_hard_links(&found), with_resolved_hard_links(&tree));
    }

    #[test]
    fn arbitrary_bytes_cause_no_panic_and_no_write_outside(bytes in prop::collection::vec(any::<u8>(), 0..2048), at in 0..600usize) {
        // A valid header before the bytes lets some of them get further.
        let mut archive = Tar::default().file("a", "x").end();
        let at = at.min(archive.len());
        archive.splice(at.., bytes);
        let dir = scratch();
        let refused = extract(dir.path(), &archive).err();
        prop_assert!(!matches!(&refused, Some(error) if error.kind() == Kind::System), "{:?}", refused);
        prop_assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 2, "layout and store");
    }
}

/// Every regular file below `dir`.
fn files(dir: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("list") {
        let entry = entry.expect("entry");
        match entry.file_type().expect("type") {
            it if it.is_dir() => files(&entry.path(), all),
            it if it.is_file() => all.push(entry.path()),
            _ => {}
        }
    }
}

#[test]
fn full_verification_detects_every_flipped_byte() {
    let dir = scratch();
    let archives = [
        Tar::default()
            .dir("d/")
            .file("d/a", "content")
            .file("d/.wh.b", "")
            .symlink("l", "d/a")
            .hardlink("h", "d/a")
            .end(),
        Tar::default()
            .pax(&[("SCHILY.xattr.user.note", "kept")])
            .file("e", "more")
            .file("f/.wh..wh..opq", "")
            .end(),
    ];
    let layout = TestLayout::new(&dir.path().join("layout"));
    layout.index(&[layout.image(&archives.map(|archive| (GZIP, gzip(&archive), archive)))]);
    let store = Store::open(&dir.path().join("store")).expect("store");
    let name = reference("it:1");
    store.import(&layout.reference(), Some("it:1"), Policy::default(), &|_| {}).expect("import");
    let options = RootfsOptions { verify: Verify::Full, ..RootfsOptions::default() };
    let open = || Store::open(store.root());
    let run = || open().and_then(|store| store.rootfs(&store.resolve(&name)?, options));
    let sound = || {
        let all = open().and_then(|store| store.verify(None, false));
        all.is_ok_and(|all| all.iter().all(|checked| checked.problem.is_none()))
    };
    run().expect("sound");
    let mut all = Vec::new();
    files(store.root(), &mut all);
    let mut flipped = 0;
    for path in all {
        let good = fs::read(&path).expect("read");
        let mode = fs::metadata(&path).expect("metadata").permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
        let name = path.strip_prefix(store.root()).expect("below").display().to_string();
        // Full verification does not use the stamps.
        if name.ends_with("/stamps") {
            continue;
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 7);
            fs::write(&path, &bad).expect("write");
            fs::set_permissions(&path, mode.clone()).expect("mode");
            let refused = run().is_err() && (!sound() || name.ends_with("index.json"));
            assert!(refused || same_meaning(&name, &good, &bad), "byte {at} of {name}");
            flipped += 1;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
        }
        for (what, bad) in [
            ("cut", good[..good.len() - 1].to_vec()),
            ("emptied", Vec::new()),
            ("longer", [&good[..], b"x"].concat()),
            ("longer by zeros", [&good[..], &[0; 512]].concat()),
        ] {
            fs::write(&path, &bad).expect("write");
            fs::set_permissions(&path, mode.clone()).expect("mode");
            assert!(run().is_err(), "{name} {what}");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
        }
        fs::write(&path, &good).expect("write");
        fs::set_permissions(&path, mode).expect("mode");
        run().unwrap_or_else(|error| panic!("{name} is as it was: {error}"));
    }
    println!("{flipped} bytes flipped, each detected");
    assert!(flipped > 2500, "{flipped}");
}

/// No digest covers the index, because it is where digests come from. A flipped byte there is rejected, or changes no digest, size or name
/// that a run uses.
fn same_meaning(name: &str, good: &[u8], bad: &[u8]) -> bool {
    let used_fields = |bytes: &[u8]| {
        let index: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let image = &index["manifests"][0];
        let tag = image["annotations"]["org.opencontainers.image.ref.name"].clone();
        Some((image["digest"].clone(), image["size"].clone(), tag))
    };
    let parsed = |bytes: &[u8]| -> Option<serde_json::Value> { serde_json::from_slice(bytes).ok() };
    name == "index.json" && used_fields(good) == used_fields(bad)
        // Only the version is read.
        || name == "oci-layout" && parsed(bad).is_some_and(|layout| layout["imageLayoutVersion"] == "1.0.0")
}

#[test]
fn full_disk_leaves_the_store_consistent() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!(
            "SKIPPED full_disk_leaves_the_store_consistent: only root can mount a small file system"
        );
    }
    // In a new mount namespace, so that the mount is always removed.
    let inside = "INVARLOCK_TEST_SMALL_DISK";
    if std::env::var_os(inside).is_none() {
        let program = std::env::current_exe().expect("own program");
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec"])
            .arg(format!(
                "mount -t tmpfs -o size=3m none /mnt; mkdir /mnt/d; exec '{}' --exact full_disk_leaves_the_store_consistent --nocapture",
                program.display()
            ))
            .env(inside, "1")
            .output()
            .expect("unshare");
        return assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let dir = scratch();
    let layout = TestLayout::new(&dir.path().join("layout"));
    let mut noise = 1u64;
    let mut random = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + (noise >> 60) as u8)
    };
    let image = |size: usize, random: &mut dyn FnMut() -> char| {
        let content: String = (0..size).map(|_| random()).collect();
        let archive = Tar::default().file("a", &content).end();
        layout.image(&[(TAR, archive.clone(), archive)])
    };
    let (small, large, larger) =
        (image(100, &mut random), image(1_700_000, &mut random), image(4_000_000, &mut random));
    let store = Store::open("/mnt/d".as_ref()).expect("store");
    let import = |image: &serde_json::Value, name: &str| {
        layout.index(std::slice::from_ref(image));
        store.import(&layout.reference(), Some(name), Policy::default(), &|_| {})
    };
    import(&small, "small:1").expect("enough space");
    for (image, what) in [(&large, "extracted layer"), (&larger, "blob")] {
        let error = import(image, "large:1").expect_err(what);
        assert!(error.kind() == Kind::System && error.message().contains("No space"), "{what}: {error}");
        assert_eq!(store.list().expect("list").len(), 1, "{what}");
        store.gc(false).expect("gc");
        assert!(
            store.verify(None, false).expect("verify").iter().all(|checked| checked.problem.is_none()),
            "{what}"
        );
        let names = fs::read_dir("/mnt/d/trees").expect("list").count();
        assert_eq!(names, 3, "{what}: the small layer, its seal, and the empty layer");
    }
    import(&small, "again:1").expect("enough space again");
    // Garbage collection works on a full disk.
    fs::write("/mnt/rest", vec![7; 4 << 20]).expect_err("full");
    import(&large, "large:1").expect_err("no space");
    for name in ["small:1", "again:1"] {
        store.remove(&Reference::parse(name).expect("reference")).expect("rm");
    }
    assert!(store.gc(false).expect("gc").bytes > 0);
    assert_eq!(store.list().expect("list"), []);
}

/// Imports an image with a configuration of almost the maximal size.
fn long_history(layout: &TestLayout, store: &Store) {
    let archive = Tar::default().file("a", "1").end();
    let layer = Digest::of(&archive);
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","rootfs":{{"type":"layers","diff_ids":["{layer}"]}},"history":[{}{{}}]}}"#,
        arch(),
        "{},".repeat(1_300_000)
    );
    let descriptor = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": layout.blob(bytes), "size": bytes.len()});
    let (config, layers) = (descriptor(CONFIG, config.as_bytes()), [descriptor(TAR, &archive)]);
    let manifest =
        serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    layout.index(&[layout.json(MANIFEST, &manifest)]);
    store.import(&layout.reference(), Some("long:1"), Policy::default(), &|_| {}).expect("import");
    store.gc(false).expect("gc");
}

#[test]
fn memory_is_independent_of_the_size_of_the_image() {
    // In a subprocess, whose peak memory contains nothing else.
    let inside = "INVARLOCK_TEST_MEMORY";
    let name = "memory_is_independent_of_the_size_of_the_image";
    match std::env::var_os(inside) {
        None => {
            let dir = scratch();
            // An archive of 30,000 small files and a large one.
            fs::create_dir_all(dir.path().join("layout")).expect("fixture");
            let archive =
                std::io::BufWriter::new(fs::File::create(dir.path().join("archive.tar")).expect("fixture"));
            let mut archive = tar::Builder::new(archive);
            let mut add = |name: String, size: u64| {
                let mut header = tar::Header::new_ustar();
                header.set_path(name).expect("name");
                header.set_mode(0o644);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(0);
                header.set_size(size);
                header.set_cksum();
                archive.append(&header, std::io::repeat(0).take(size)).expect("entry");
            };
            for i in 0..30_000 {
                add(format!("directory-{}/some-name-of-usual-length-{i}", i % 60), 1);
            }
            add("large".to_owned(), 200 << 20);
            archive.into_inner().expect("archive").flush().expect("archive");
            let output = Command::new(std::env::current_exe().expect("own program"))
                .args(["--exact", name, "--nocapture"])
                .env(inside, dir.path())
                .output()
                .expect("subprocess");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
            print!(
                "{}",
                text.lines()
                    .filter(|line| line.contains("KiB"))
                    .map(|line| format!("{line}\n"))
                    .collect::<String>()
            );
        }
        Some(dir) => {
            let dir = PathBuf::from(dir);
            let layout = TestLayout::new(&dir.join("layout"));
            layout.index(&[layout.image_of_file(&dir.join("archive.tar"))]);
            let store = Store::open(&dir.join("store")).expect("store");
            let before = peak_memory();
            store.import(&layout.reference(), Some("it:1"), Policy::default(), &|_| {}).expect("import");
            let image = store.resolve(&reference("it:1")).expect("resolved");
            for verify in [Verify::Full, Verify::Quick] {
                store.rootfs(&image, RootfsOptions { verify, ..RootfsOptions::default() }).expect("rootfs");
            }
            store.verify(None, false).expect("verify");
            store.gc(false).expect("gc");
            println!("30,001 files and 240 MB of archive: {} KiB, {before} before", peak_memory());
            assert!(peak_memory() < 24 << 10, "{} KiB", peak_memory());
            long_history(&layout, &store);
            println!("a configuration of 4 MB: {} KiB", peak_memory());
            assert!(peak_memory() < 32 << 10, "{} KiB", peak_memory());
        }
    }
}
