//! The store on common file systems, each mounted in a new mount namespace.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "skipped tests and results")]

mod common;

use invarlock_error::Kind;
use std::fs;
use std::path::Path;

use common::*;
use invarlock_images::{Level, Policy, RootfsOptions, Store, VerifiedRootfs, Verify};

/// Tells the subprocess the name of the file system on [`STORE_DIR`].
const IN_NAMESPACE: &str = "INVARLOCK_TEST_FILE_SYSTEM";

const STORE_DIR: &str = "/mnt/store";

/// Name, command to create the file system in `$D/disk` (of the minimal size), and command to mount it on `/mnt`.
const KINDS: [(&str, &str, &str); 5] = [
    ("tmpfs", "true", "mount -t tmpfs -o size=64m none /mnt"),
    (
        "overlay",
        "mkdir $D/lower $D/upper $D/work",
        "mount -t overlay -o lowerdir=$D/lower,upperdir=$D/upper,workdir=$D/work none /mnt",
    ),
    (
        "ext4",
        "truncate -s 64M $D/disk && mkfs.ext4 -q -b 4096 -O verity $D/disk",
        "mount -o loop $D/disk /mnt",
    ),
    ("xfs", "truncate -s 320M $D/disk && mkfs.xfs -q $D/disk", "mount -o loop $D/disk /mnt"),
    ("btrfs", "truncate -s 256M $D/disk && mkfs.btrfs -q $D/disk", "mount -o loop $D/disk /mnt"),
];

#[test]
fn store_works_on_local_file_systems() {
    if let Some(name) = std::env::var_os(IN_NAMESPACE) {
        return exercise_store(&name.to_string_lossy());
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED store_works_on_local_file_systems: only root can mount them");
    }
    let program = std::env::current_exe().expect("own program");
    let itself = format!("'{}' --exact store_works_on_local_file_systems --nocapture", program.display());
    for (name, make, mount) in KINDS {
        // On disk, because the upper directory of an overlay needs `trusted.*` attributes.
        let dir = scratch();
        if let Err(why) =
            run_in_mount_namespace((IN_NAMESPACE, name), &format!("{make}; {mount}"), dir.path())
        {
            assert!(!["tmpfs", "ext4"].contains(&name), "every machine has {name}: {why}");
            eprintln!("SKIPPED store_works_on_local_file_systems: {name}: {}", why.trim());
            continue;
        }
        run_in_mount_namespace((IN_NAMESPACE, name), &format!("{mount}; exec {itself}"), dir.path())
            .unwrap_or_else(|why| panic!("{name}: {why}"));
        println!("{name}: import, verify, alter, repair, remove");
    }
}

/// Uses everything that the store needs from a file system: attributes, whiteouts, hard links, locks, change stamps, renames. Images with
/// whiteouts are rejected on an overlay, which interprets a whiteout as its own.
fn exercise_store(name: &str) {
    let archives = [
        Tar::default().dir("d/").file("d/a", "content").symlink("l", "d/a").hardlink("h", "d/a").end(),
        Tar::default()
            .pax(&[("SCHILY.xattr.user.note", "kept")])
            .file("e", "more")
            .file("d/.wh.a", "")
            .file("f/.wh..wh..opq", "")
            .end(),
    ];
    let elsewhere = scratch();
    let layout = TestLayout::new(&elsewhere.path().join("layout"));
    layout.index(&[layout.image(&archives.map(|archive| (ZSTD, zstd(&archive), archive)))]);
    let store = Store::open(STORE_DIR.as_ref()).expect("store");
    if name == "overlay" {
        let refused =
            store.import(&layout.reference(), None, Policy::default(), &|_| {}).expect_err("a whiteout");
        assert!(
            refused.kind() == Kind::Unsupported && message_and_hint(&refused).contains("overlay"),
            "{refused}"
        );
        let archives = [
            Tar::default().dir("d/").file("d/a", "content").end(),
            Tar::default().file("f/.wh..wh..opq", "").end(),
        ];
        layout.index(&[layout.image(&archives.map(|archive| (ZSTD, zstd(&archive), archive)))]);
    }
    store.import(&layout.reference(), Some("it:1"), Policy::default(), &|_| {}).expect("import");
    let image = store.resolve(&reference("it:1")).expect("resolved");
    let rootfs = |verify| store.rootfs(&image, RootfsOptions { verify, ..RootfsOptions::default() });
    assert_eq!(rootfs(Verify::Quick).expect("quick").level, Level::Quick);
    let whole = rootfs(Verify::Full).expect("full");
    assert_eq!(whole.level, Level::Full);
    let file = whole.layers[0].join("d/a");
    drop(whole);
    fs::write(&file, "cOntent").expect("write");
    for verify in [Verify::Quick, Verify::Full] {
        rootfs(verify).expect_err("altered");
    }
    store.verify(None, true).expect("repair");
    rootfs(Verify::Full).expect("repaired");
    match rootfs(Verify::FsVerity) {
        Ok(held) => {
            assert!(["ext4", "btrfs"].contains(&name), "{name} has no fs-verity");
            assert_eq!(held.level, Level::FsVerity);
            drop(held);
            assert_protected(&store, &rootfs, &file);
            println!("{name} supports fs-verity");
        }
        Err(refused) => {
            let is_explained = refused.kind() == Kind::Unsupported
                && message_and_hint(&refused).contains("CONFIG_FS_VERITY")
                && message_and_hint(&refused).contains("full");
            assert!(is_explained, "{refused}");
            assert_eq!(rootfs(Verify::Quick).expect("as before").level, Level::Quick);
        }
    }
    store.remove(&reference("it:1")).expect("rm");
    store.gc(false).expect("gc");
    assert_eq!(fs::read_dir(store.root().join("trees")).expect("list").count(), 1, "only the empty layer");
}

/// The kernel prevents writes to the file, and a replaced file is detected.
fn assert_protected(
    store: &Store,
    rootfs: &dyn Fn(Verify) -> invarlock_images::Result<VerifiedRootfs>,
    file: &Path,
) {
    fs::write(file, "cOntent").expect_err("root cannot write either");
    for level in [Verify::FsVerity, Verify::Full, Verify::Quick] {
        rootfs(level).expect("nothing was changed");
    }
    fs::remove_file(file).expect("rm");
    fs::write(file, "cOntent").expect("write");
    assert!(matches!(rootfs(Verify::FsVerity), Err(error) if error.kind() == Kind::Integrity));
    store.verify(None, true).expect("repair");
    assert_eq!(rootfs(Verify::FsVerity).expect("repaired").level, Level::FsVerity);
}

/// Setting an attribute fails because the disk is full. This must not be reported as an attack.
#[test]
fn full_disk_during_attributes_is_a_system_error() {
    let name = "full_disk_during_attributes_is_a_system_error";
    if std::env::var_os(IN_NAMESPACE).is_none() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIPPED {name}: only root can make a small disk");
        }
        let program = std::env::current_exe().expect("own program");
        let mount = "mount -t tmpfs -o size=64m,nr_inodes=400 none /mnt";
        let script = format!("{mount}; exec '{}' --exact {name} --nocapture", program.display());
        return run_in_mount_namespace((IN_NAMESPACE, "tmpfs"), &script, scratch().path())
            .unwrap_or_else(|why| panic!("{why}"));
    }
    let value = "x".repeat(30_000);
    let files = (0..40).fold(Tar::default(), |tar, i| {
        tar.pax(&[("SCHILY.xattr.user.note", &value)]).file(&format!("f{i}"), "")
    });
    let elsewhere = scratch();
    let layout = TestLayout::new(&elsewhere.path().join("layout"));
    let archive = files.end();
    layout.index(&[layout.image(&[(ZSTD, zstd(&archive), archive)])]);
    let store = Store::open(STORE_DIR.as_ref()).expect("store");
    let error = store.import(&layout.reference(), None, Policy::default(), &|_| {}).expect_err("full");
    match &error {
        why if why.kind() == Kind::Unsupported => {
            eprintln!("SKIPPED {name}: {why}")
        }
        why if why.kind() == Kind::System => {
            assert!(why.message().contains("user.note") && why.message().contains("No space left"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.list().expect("list"), []);
}
