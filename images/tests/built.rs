//! Images made from directories: the same for the same files, nothing hidden without a word, and bills that list what is there.
#![allow(clippy::print_stderr, reason = "tests say what they skip")]

mod common;

use invarlock_error::Kind;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use common::*;
use invarlock_images::{
    Base, Built, Changes, Error, Policy, Recipe, Reference, Result, RootfsOptions, Store, Verify,
};
use rustix::fs::{XattrFlags, setxattr};

struct Place {
    dir: invarlock_security::SecureTempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let dir = scratch();
        let store = Store::open(&dir.path().join("store")).expect("store");
        Self { dir, store }
    }

    /// A directory with these files, by path and content; a content that begins with `->` is a link.
    fn tree(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = self.dir.path().join(name);
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("directory");
            match content.strip_prefix("->") {
                Some(target) => symlink(target, path).expect("link"),
                None => fs::write(path, content).expect("file"),
            }
        }
        root
    }

    fn build(&self, base: &Path, layers: &[PathBuf]) -> Result<Built> {
        self.build_on(Base::Root(base.to_owned()), layers)
    }

    fn build_on(&self, base: Base, layers: &[PathBuf]) -> Result<Built> {
        let (name, layers, policy) = ("it:1".to_owned(), layers.to_vec(), Policy::default());
        let recipe = Recipe { name, base, layers, changes: Changes::default(), policy, time: None };
        self.store.build(&recipe, &|_| {})
    }

    /// Package URLs of what the image is made of; none where nobody knows.
    fn bill(&self) -> Option<Vec<String>> {
        let bytes = self.store.sbom(&Reference::parse("it:1").expect("reference")).ok()?;
        let bill: serde_json::Value = serde_json::from_slice(&bytes).expect("json");
        let of = |it: &serde_json::Value| it["purl"].as_str().expect("purl").to_owned();
        Some(bill["components"].as_array().expect("list").iter().map(of).collect())
    }
}

fn says(error: &Error, words: &[&str]) {
    let shown = format!("{error}; help: {}", error.hint().unwrap_or_default());
    words.iter().for_each(|word| assert!(shown.contains(word), "{word:?} is not in: {shown}"));
}

#[test]
fn leave_that_others_have_to_write_makes_no_other_image() {
    let place = Place::new();
    let digests = [0o022, 0o002].map(|umask| {
        let root = place.tree(&format!("{umask:o}"), &[("d/a", "1"), ("tmp/x", "2")]);
        for (path, mode) in [("d", 0o777), ("d/a", 0o666)] {
            fs::set_permissions(root.join(path), Permissions::from_mode(mode & !umask)).expect("mode");
        }
        fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777)).expect("mode");
        place.build(&root, &[]).expect("built").manifest_digest
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn the_store_is_in_no_image_of_its_own() {
    let place = Place::new();
    fs::write(place.dir.path().join("a"), "1").expect("file");
    let error = place.build(place.dir.path(), &[]).expect_err("the store");
    assert!(error.kind() == Kind::Input, "{error}");
    says(&error, &["/store", "INVARLOCK_STORE"]);
    assert_eq!(place.store.list().expect("list"), []);
}

#[test]
fn a_link_below_is_not_replaced_without_a_word() {
    let place = Place::new();
    let base = place.tree("base", &[("usr/bin/sh", "sh"), ("bin", "->usr/bin"), ("etc/a", "1")]);
    let hides = place.tree("hides", &[("bin/tool", "tool"), ("etc/b", "2")]);
    let error = place.build(&base, std::slice::from_ref(&hides)).expect_err("hides /bin");
    assert!(error.kind() == Kind::Input, "{error}");
    says(&error, &["hides", "/bin is a link", ".wh.bin"]);
    assert_eq!(place.store.list().expect("list"), [], "it has no name");
    // In between it was replaced by name, or it is beside what is there.
    let meant = place.tree("meant", &[("bin/tool", "tool"), (".wh.bin", "")]);
    place.build(&base, &[meant, hides]).expect("meant");
    let beside = place.tree("beside", &[("usr/bin/tool", "tool"), ("etc/b", "2"), ("new/c", "3")]);
    place.build(&base, &[beside]).expect("beside");
}

#[test]
fn a_bill_lists_what_is_in_the_image_or_there_is_none() {
    let status = |version: &str| {
        format!("Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n")
    };
    let (old, new) = (status("2.41"), status("2.42"));
    let wheel = |version: &str| format!("Metadata-Version: 2.4\nName: foo\nVersion: {version}\n");
    let (one, two) = (wheel("1.0"), wheel("2.0"));
    let debian = |version: &str| format!("pkg:deb/debian/libc6@{version}?arch=amd64");
    let place = Place::new();
    let base = place.tree("base", &[("var/lib/dpkg/status", &old), ("foo-1.0.dist-info/METADATA", &one)]);
    place.build(&base, &[]).expect("base");
    assert_eq!(place.bill().expect("bill"), [debian("2.41"), "pkg:pypi/foo@1.0".to_owned()]);

    // A later list of Debian's speaks of all its packages, on an image as on a directory.
    let upgraded = place.tree("upgraded", &[("var/lib/dpkg/status", &new)]);
    let both = [debian("2.42"), "pkg:pypi/foo@1.0".to_owned()];
    let on = Base::Image(Reference::parse("it:1").expect("reference"));
    let first = place.build_on(on, std::slice::from_ref(&upgraded)).expect("built");
    assert_eq!(place.bill().expect("bill"), both);
    let second = place.build(&base, &[upgraded]).expect("built");
    assert_eq!(place.bill().expect("bill"), both);
    assert_eq!(first.manifest_digest, second.manifest_digest);

    for (name, files) in [
        ("another version", &[("foo-2.0.dist-info/METADATA", &*two)][..]),
        ("a removal", &[(".wh.foo-1.0.dist-info", "")]),
        ("apk", &[("lib/apk/db/installed", "P:musl")]),
        ("rpm", &[("var/lib/rpm/rpmdb.sqlite", "")]),
        ("no dpkg", &[("var/lib/dpkg/status.d/libc6", &old)]),
    ] {
        let place = Place::new();
        let base = place.tree("base", &[("var/lib/dpkg/status", &old), ("foo-1.0.dist-info/METADATA", &one)]);
        let layer = place.tree(name, files);
        place.build(&base, &[layer]).expect(name);
        assert_eq!(place.bill(), None, "{name}");
    }
}

#[test]
fn an_attribute_that_no_archive_can_name_is_left_out_and_counted() {
    let place = Place::new();
    let root = place.tree("root", &[("a", "1")]);
    for name in ["user.a=b", "user.a=c", "user.kept"] {
        if let Err(error) = setxattr(root.join("a"), name, b"1", XattrFlags::empty()) {
            return eprintln!("SKIPPED an_attribute_that_no_archive_can_name: {error}");
        }
    }
    let built = place.build(&root, &[]).expect("built");
    assert_eq!(built.left_out.attributes, 2);
    let image = place.store.resolve(&Reference::parse("it:1").expect("reference")).expect("image");
    let care = RootfsOptions { verify: Verify::Full, ..RootfsOptions::default() };
    let rootfs = place.store.rootfs(&image, care).expect("rootfs");
    let mut names = [0; 100];
    let length = rustix::fs::listxattr(rootfs.layers[0].join("a"), &mut names[..]).expect("names");
    assert_eq!(&names[..length], b"user.kept\0");
}

#[test]
fn archives_of_other_packings_are_said_to_be_that() {
    let place = Place::new();
    for (magic, unpacked_by) in [(&b"\xfd7zXZ\0\0\0\0\0"[..], "xz -d"), (b"BZh91AY&SY\0\0", "bzip2 -d")] {
        let file = place.dir.path().join("packed");
        fs::write(&file, magic).expect("file");
        let built = place.build(&file, &[]).expect_err("packed");
        let from = Reference::parse(&format!("docker-archive:{}", file.display())).expect("reference");
        let imported = place.store.import(&from, None, Policy::default(), &|_| {}).expect_err("packed");
        for error in [built, imported] {
            assert!(error.kind() == Kind::Unsupported, "{error}");
            says(&error, &[unpacked_by]);
        }
    }
    assert_eq!(fs::read_dir(place.store.root().join("blobs/sha256")).expect("list").count(), 0);
}

#[test]
fn a_path_may_have_an_at_sign_in_it() {
    let place = Place::new();
    let root = place.tree("root", &[("a", "1")]);
    let built = place.build(&root, &[]).expect("built");
    for (kind, what) in
        [("oci", "u@corp.example/lay"), ("oci-archive", "u@corp.example/a.tar"), ("oci", "u@corp")]
    {
        let to = format!("{kind}:{}/{what}", place.dir.path().display());
        fs::create_dir_all(place.dir.path().join("u@corp.example")).expect("directory");
        let reference = |text: &str| Reference::parse(text).expect("reference");
        let from = reference("it:1");
        place.store.export(&from, &reference(&format!("{to}:it")), &|_| {}).expect("export");
        for text in [to.clone(), format!("{to}:it"), format!("{to}@{}", built.manifest_digest)] {
            let found =
                place.store.resolve(&reference(&text)).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(found.manifest_digest, built.manifest_digest, "{text}");
            assert_eq!(reference(&text).to_string(), text);
        }
    }
    for text in ["oci:lay@sha256:short", "oci:lay@sha512:00", "it:1@sha1:00"] {
        assert!(Reference::parse(text).is_err(), "{text}");
    }
}
