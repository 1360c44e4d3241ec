//! The store on every kind of file system that a machine is likely to have, each mounted in a mount namespace of its own.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "what is skipped, and what was seen")]

mod common;

use invarlock_error::Kind;
use std::fs;
use std::path::Path;

use common::*;
use invarlock_images::{Level, Policy, Reference, RootfsOptions, Store, VerifiedRootfs, Verify};

/// The name of the file system on [`PLACE`], told to the copy that works there.
const INSIDE: &str = "INVARLOCK_TEST_FILE_SYSTEM";

const PLACE: &str = "/mnt/store";

/// A file system's name, what makes one in `$D/disk`, and what mounts it on `/mnt`. The disk is as small as its maker allows.
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

fn reference(text: &str) -> Reference {
    Reference::parse(text).expect("reference")
}

#[test]
fn the_store_works_on_every_local_file_system() {
    if let Some(name) = std::env::var_os(INSIDE) {
        return works(&name.to_string_lossy());
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED the_store_works_on_every_local_file_system: only root can mount them");
    }
    let program = std::env::current_exe().expect("own program");
    let itself =
        format!("'{}' --exact the_store_works_on_every_local_file_system --nocapture", program.display());
    for (name, make, mount) in KINDS {
        // On the disk, not in memory: an overlay needs attributes of the trusted name space above.
        let dir = scratch();
        if let Err(why) = inside((INSIDE, name), &format!("{make}; {mount}"), dir.path()) {
            assert!(!["tmpfs", "ext4"].contains(&name), "every machine has {name}: {why}");
            eprintln!("SKIPPED the_store_works_on_every_local_file_system: {name}: {}", why.trim());
            continue;
        }
        inside((INSIDE, name), &format!("{mount}; exec {itself}"), dir.path())
            .unwrap_or_else(|why| panic!("{name}: {why}"));
        println!("{name}: import, verify, alter, repair, remove");
    }
}

/// All that the store wants of a file system: attributes, whiteouts, hard links, locks, stamps, renames. An overlay takes a whiteout for
/// one of its own, and makes none: only images that need none can be there.
fn works(name: &str) {
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
    layout.index(&[layout.image(&archives.map(|it| (ZSTD, zstd(&it), it)))]);
    let store = Store::open(PLACE.as_ref()).expect("store");
    if name == "overlay" {
        let refused =
            store.import(&layout.reference(), None, Policy::default(), &|_| {}).expect_err("a whiteout");
        assert!(refused.kind() == Kind::Unsupported && refused.message().contains("overlay"), "{refused}");
        let archives = [
            Tar::default().dir("d/").file("d/a", "content").end(),
            Tar::default().file("f/.wh..wh..opq", "").end(),
        ];
        layout.index(&[layout.image(&archives.map(|it| (ZSTD, zstd(&it), it)))]);
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
            is_held(&store, &rootfs, &file);
            println!("{name} here has fs-verity");
        }
        Err(refused) => {
            let says = refused.kind() == Kind::Unsupported
                && refused
                    .hint()
                    .is_some_and(|hint| hint.contains("CONFIG_FS_VERITY") && hint.contains("=full"));
            assert!(says, "{refused}");
            assert_eq!(rootfs(Verify::Quick).expect("as before").level, Level::Quick);
        }
    }
    store.remove(&reference("it:1")).expect("rm");
    store.gc(false).expect("gc");
    assert_eq!(fs::read_dir(store.root().join("trees")).expect("list").count(), 1, "the empty one");
}

/// The kernel keeps a file as it is; another one in its place is found.
fn is_held(store: &Store, rootfs: &dyn Fn(Verify) -> invarlock_images::Result<VerifiedRootfs>, file: &Path) {
    fs::write(file, "cOntent").expect_err("root, too, may not");
    for level in [Verify::FsVerity, Verify::Full, Verify::Quick] {
        rootfs(level).expect("nothing was changed");
    }
    fs::remove_file(file).expect("rm");
    fs::write(file, "cOntent").expect("write");
    assert!(matches!(rootfs(Verify::FsVerity), Err(error) if error.kind() == Kind::Integrity));
    store.verify(None, true).expect("repair");
    assert_eq!(rootfs(Verify::FsVerity).expect("repaired").level, Level::FsVerity);
}

/// Attributes are the last straw: the disk is full, and nobody attacked.
#[test]
fn attributes_that_a_full_disk_has_no_room_for() {
    let name = "attributes_that_a_full_disk_has_no_room_for";
    if std::env::var_os(INSIDE).is_none() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIPPED {name}: only root can make a small disk");
        }
        let program = std::env::current_exe().expect("own program");
        let mount = "mount -t tmpfs -o size=64m,nr_inodes=400 none /mnt";
        let script = format!("{mount}; exec '{}' --exact {name} --nocapture", program.display());
        return inside((INSIDE, "tmpfs"), &script, scratch().path()).unwrap_or_else(|why| panic!("{why}"));
    }
    let value = "x".repeat(30_000);
    let files = (0..40).fold(Tar::default(), |tar, i| {
        tar.pax(&[("SCHILY.xattr.user.note", &value)]).file(&format!("f{i}"), "")
    });
    let elsewhere = scratch();
    let layout = TestLayout::new(&elsewhere.path().join("layout"));
    let archive = files.end();
    layout.index(&[layout.image(&[(ZSTD, zstd(&archive), archive)])]);
    let store = Store::open(PLACE.as_ref()).expect("store");
    let error = store.import(&layout.reference(), None, Policy::default(), &|_| {}).expect_err("full");
    match &error {
        why if why.kind() == Kind::Unsupported && why.message().contains("does not support") => {
            eprintln!("SKIPPED {name}: {why}")
        }
        why if why.kind() == Kind::System => {
            assert!(why.message().contains("user.note") && why.message().contains("No space left"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.list().expect("list"), []);
}
