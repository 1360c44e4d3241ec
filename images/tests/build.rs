//! Images built from directories: reproducible, replacing a path of a lower layer requires a whiteout, and SBOMs list only packages that
//! are present.
#![allow(clippy::print_stderr, reason = "skipped tests")]

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

struct TestStore {
    dir: invarlock_security::SecureTempDir,
    store: Store,
}

impl TestStore {
    fn new() -> Self {
        let dir = scratch();
        let store = Store::open(&dir.path().join("store")).expect("store");
        Self { dir, store }
    }

    /// Creates a directory with files by path and content. A content that starts with `->` is the target of a link.
    fn directory(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
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

    /// The package URLs in the SBOM of `it:1`; `None` without an SBOM.
    fn sbom(&self) -> Option<Vec<String>> {
        let bytes = self.store.sbom(&reference("it:1")).ok()?;
        let sbom: serde_json::Value = serde_json::from_slice(&bytes).expect("json");
        let purl = |component: &serde_json::Value| component["purl"].as_str().expect("purl").to_owned();
        Some(sbom["components"].as_array().expect("list").iter().map(purl).collect())
    }
}

fn assert_contains(error: &Error, words: &[&str]) {
    let text = message_and_hint(error);
    words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in: {text}"));
}

#[test]
fn digest_does_not_depend_on_umask() {
    let test_store = TestStore::new();
    let digests = [0o022, 0o002].map(|umask| {
        let root = test_store.directory(&format!("{umask:o}"), &[("d/a", "1"), ("tmp/x", "2")]);
        for (path, mode) in [("d", 0o777), ("d/a", 0o666)] {
            fs::set_permissions(root.join(path), Permissions::from_mode(mode & !umask)).expect("mode");
        }
        fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777)).expect("mode");
        test_store.build(&root, &[]).expect("built").manifest_digest
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn rejects_build_from_directory_that_contains_the_store() {
    let test_store = TestStore::new();
    fs::write(test_store.dir.path().join("a"), "1").expect("file");
    let error = test_store.build(test_store.dir.path(), &[]).expect_err("the store");
    assert!(error.kind() == Kind::Input, "{error}");
    assert_contains(&error, &["/store", "INVARLOCK_STORE"]);
    assert_eq!(test_store.store.list().expect("list"), []);
}

#[test]
fn a_link_below_is_not_retest_stored_without_a_word() {
    let test_store = TestStore::new();
    let base = test_store.directory("base", &[("usr/bin/sh", "sh"), ("bin", "->usr/bin"), ("etc/a", "1")]);
    let hides = test_store.directory("hides", &[("bin/tool", "tool"), ("etc/b", "2")]);
    let error = test_store.build(&base, std::slice::from_ref(&hides)).expect_err("hides /bin");
    assert!(error.kind() == Kind::Input, "{error}");
    assert_contains(&error, &["hides", "/bin is a link", ".wh.bin"]);
    assert_eq!(test_store.store.list().expect("list"), [], "no image is created");
    // A whiteout retest_stores the link explicitly; other paths do not retest_store it.
    let meant = test_store.directory("meant", &[("bin/tool", "tool"), (".wh.bin", "")]);
    test_store.build(&base, &[meant, hides]).expect("meant");
    let beside = test_store.directory("beside", &[("usr/bin/tool", "tool"), ("etc/b", "2"), ("new/c", "3")]);
    test_store.build(&base, &[beside]).expect("beside");
}

#[test]
fn sbom_lists_only_packages_in_the_image_or_is_missing() {
    let status = |version: &str| {
        format!("Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n")
    };
    let (old, new) = (status("2.41"), status("2.42"));
    let wheel = |version: &str| format!("Metadata-Version: 2.4\nName: foo\nVersion: {version}\n");
    let (one, two) = (wheel("1.0"), wheel("2.0"));
    let debian = |version: &str| format!("pkg:deb/debian/libc6@{version}?arch=amd64");
    let test_store = TestStore::new();
    let base =
        test_store.directory("base", &[("var/lib/dpkg/status", &old), ("foo-1.0.dist-info/METADATA", &one)]);
    test_store.build(&base, &[]).expect("base");
    assert_eq!(test_store.sbom().expect("SBOM"), [debian("2.41"), "pkg:pypi/foo@1.0".to_owned()]);

    // A later dpkg status file lists all packages, for an image and for a directory as base.
    let upgraded = test_store.directory("upgraded", &[("var/lib/dpkg/status", &new)]);
    let both = [debian("2.42"), "pkg:pypi/foo@1.0".to_owned()];
    let on = Base::Image(reference("it:1"));
    let first = test_store.build_on(on, std::slice::from_ref(&upgraded)).expect("built");
    assert_eq!(test_store.sbom().expect("SBOM"), both);
    let second = test_store.build(&base, &[upgraded]).expect("built");
    assert_eq!(test_store.sbom().expect("SBOM"), both);
    assert_eq!(first.manifest_digest, second.manifest_digest);

    for (name, files) in [
        ("another version", &[("foo-2.0.dist-info/METADATA", &*two)][..]),
        ("a removal", &[(".wh.foo-1.0.dist-info", "")]),
        ("apk", &[("lib/apk/db/installed", "P:musl")]),
        ("rpm", &[("var/lib/rpm/rpmdb.sqlite", "")]),
        ("no dpkg", &[("var/lib/dpkg/status.d/libc6", &old)]),
    ] {
        let test_store = TestStore::new();
        let base = test_store
            .directory("base", &[("var/lib/dpkg/status", &old), ("foo-1.0.dist-info/METADATA", &one)]);
        let layer = test_store.directory(name, files);
        test_store.build(&base, &[layer]).expect(name);
        assert_eq!(test_store.sbom(), None, "{name}");
    }
}

#[test]
fn attribute_name_with_equals_sign_is_omitted_and_counted() {
    let test_store = TestStore::new();
    let root = test_store.directory("root", &[("a", "1")]);
    for name in ["user.a=b", "user.a=c", "user.kept"] {
        if let Err(error) = setxattr(root.join("a"), name, b"1", XattrFlags::empty()) {
            return eprintln!("SKIPPED attribute_name_with_equals_sign_is_omitted_and_counted: {error}");
        }
    }
    let built = test_store.build(&root, &[]).expect("built");
    assert_eq!(built.left_out.attributes, 2);
    let image = test_store.store.resolve(&reference("it:1")).expect("image");
    let options = RootfsOptions { verify: Verify::Full, ..RootfsOptions::default() };
    let rootfs = test_store.store.rootfs(&image, options).expect("rootfs");
    let mut names = [0; 100];
    let length = rustix::fs::listxattr(rootfs.layers[0].join("a"), &mut names[..]).expect("names");
    assert_eq!(&names[..length], b"user.kept\0");
}

#[test]
fn error_names_the_tool_for_an_unsupported_compression() {
    let test_store = TestStore::new();
    for (magic, tool) in [(&b"\xfd7zXZ\0\0\0\0\0"[..], "xz -d"), (b"BZh91AY&SY\0\0", "bzip2 -d")] {
        let file = test_store.dir.path().join("packed");
        fs::write(&file, magic).expect("file");
        let built = test_store.build(&file, &[]).expect_err("packed");
        let from = Reference::parse(&format!("docker-archive:{}", file.display())).expect("reference");
        let imported = test_store.store.import(&from, None, Policy::default(), &|_| {}).expect_err("packed");
        for error in [built, imported] {
            assert!(error.kind() == Kind::Unsupported, "{error}");
            assert_contains(&error, &[tool]);
        }
    }
    assert_eq!(fs::read_dir(test_store.store.root().join("blobs/sha256")).expect("list").count(), 0);
}

#[test]
fn path_of_reference_may_contain_at_sign() {
    let test_store = TestStore::new();
    let root = test_store.directory("root", &[("a", "1")]);
    let built = test_store.build(&root, &[]).expect("built");
    for (kind, what) in
        [("oci", "u@corp.example/lay"), ("oci-archive", "u@corp.example/a.tar"), ("oci", "u@corp")]
    {
        let to = format!("{kind}:{}/{what}", test_store.dir.path().display());
        fs::create_dir_all(test_store.dir.path().join("u@corp.example")).expect("directory");
        let reference = |text: &str| Reference::parse(text).expect("reference");
        let from = reference("it:1");
        test_store.store.export(&from, &reference(&format!("{to}:it")), &|_| {}).expect("export");
        for text in [to.clone(), format!("{to}:it"), format!("{to}@{}", built.manifest_digest)] {
            let found =
                test_store.store.resolve(&reference(&text)).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(found.manifest_digest, built.manifest_digest, "{text}");
            assert_eq!(reference(&text).to_string(), text);
        }
    }
    for text in ["oci:lay@sha256:short", "oci:lay@sha512:00", "it:1@sha1:00"] {
        assert!(Reference::parse(text).is_err(), "{text}");
    }
}
