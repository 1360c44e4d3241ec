//! Archives that attack, each named by its class. None is accepted, and a canary beside the store stays as it is.

mod common;

use std::fs;
use std::path::Path;

use common::*;
use invarlock_images::Error;

#[derive(Debug, PartialEq)]
enum As {
    Safety,
    Integrity,
    Unsupported,
}

fn kind(error: &Error) -> Option<As> {
    match error {
        Error::Safety(_) => Some(As::Safety),
        Error::Integrity(_) => Some(As::Integrity),
        Error::Unsupported(_) => Some(As::Unsupported),
        _ => None,
    }
}

fn canary(dir: &Path) {
    fs::create_dir(dir.join("canary")).expect("canary");
    fs::write(dir.join("canary/file"), "alive").expect("canary");
}

fn canary_is_alive(dir: &Path, name: &str) {
    let names: Vec<_> = fs::read_dir(dir).expect("list").map(|it| it.expect("entry").file_name()).collect();
    assert_eq!(names.len(), 3, "{name}: canary, layout and store, nothing else: {names:?}");
    assert_eq!(fs::read_dir(dir.join("canary")).expect("list").count(), 1, "{name}");
    assert_eq!(fs::read_to_string(dir.join("canary/file")).expect("canary"), "alive", "{name}");
}

#[test]
fn hostile_archives_are_refused() {
    let t = Tar::default;
    let big = "x".repeat(300);
    let deep = "d/".repeat(300);
    let long = format!("{}f", "abcdefgh/".repeat(500));
    let size = |records: &[(&str, &str)]| t().pax(records).file("a", "12345678");
    let cases: Vec<(&str, Vec<u8>, As)> = vec![
        ("parent", t().file("../canary/x", "x").end(), As::Safety),
        ("parent inside", t().file("a/../../canary/x", "x").end(), As::Safety),
        ("parent of a directory", t().dir("../canary2/").end(), As::Safety),
        ("parent alone", t().dir("..").end(), As::Safety),
        ("absolute", t().file("/tmp/invarlock-x", "x").end(), As::Safety),
        ("absolute directory", t().dir("//x/").end(), As::Safety),
        ("dot inside", t().file("a/./b", "x").end(), As::Safety),
        ("empty name inside", t().file("a//b", "x").end(), As::Safety),
        ("empty", t().file("", "x").end(), As::Safety),
        ("nul in a pax path", t().pax(&[("path", "a\0b")]).file("a", "x").end(), As::Safety),
        ("root as a file", t().file(".", "x").end(), As::Safety),
        ("root as a link, CVE-2021-29136", t().symlink(".", "/").end(), As::Safety),
        (
            "root as a link, dot slash",
            t().symlink("./", "../../../../canary").file("file", "dead").end(),
            As::Safety,
        ),
        (
            "file through a link",
            t().symlink("a", "../../../../canary").file("a/file", "dead").end(),
            As::Safety,
        ),
        ("file through an absolute link", t().symlink("a", "/tmp").file("a/x", "dead").end(), As::Safety),
        ("file through an inner link", t().dir("b/").symlink("a", "b").file("a/x", "x").end(), As::Safety),
        ("link through a link", t().symlink("a", "..").symlink("a/b", "..").end(), As::Safety),
        ("file over a link", t().symlink("a", "../../../../canary/file").file("a", "dead").end(), As::Safety),
        (
            "directory over a link, CVE-2026-33056",
            t().symlink("a", "../../../../canary").dir("a/").end(),
            As::Safety,
        ),
        ("link over a directory", t().dir("a/").symlink("a", "..").end(), As::Safety),
        ("file over a file", t().file("a", "1").file("a", "2").end(), As::Safety),
        ("file over a directory", t().dir("a/").file("a", "2").end(), As::Safety),
        ("file below a file", t().file("a", "1").file("a/b", "2").end(), As::Safety),
        ("hard link up", t().hardlink("a", "../../../../canary/file").end(), As::Safety),
        ("hard link absolute", t().hardlink("a", "/etc/passwd").end(), As::Safety),
        ("hard link to nothing", t().hardlink("a", "b").end(), As::Safety),
        ("hard link through a link", t().symlink("s", "/etc").hardlink("a", "s/passwd").end(), As::Safety),
        ("hard link to a link", t().symlink("s", "/etc/passwd").hardlink("a", "s").end(), As::Safety),
        ("hard link to a directory", t().dir("d/").hardlink("a", "d").end(), As::Safety),
        ("hard link to itself", t().hardlink("a", "a").end(), As::Safety),
        ("character device", t().raw(b'3', b"null", b"", 0o666, 0, b"").end(), As::Safety),
        ("block device", t().raw(b'4', b"sda", b"", 0o666, 0, b"").end(), As::Safety),
        ("fifo", t().raw(b'6', b"pipe", b"", 0o666, 0, b"").end(), As::Safety),
        ("contiguous file", t().raw(b'7', b"a", b"", 0o644, 0, b"").end(), As::Safety),
        ("volume label", t().raw(b'V', b"a", b"", 0o644, 0, b"").end(), As::Safety),
        ("unknown type", t().raw(b'Z', b"a", b"", 0o644, 0, b"").end(), As::Safety),
        ("gnu sparse", t().raw(b'S', b"a", b"", 0o644, 0, b"").end(), As::Unsupported),
        ("pax sparse", t().pax(&[("GNU.sparse.major", "1")]).file("a", "x").end(), As::Unsupported),
        ("file that ends in a slash", t().file("a/", "x").end(), As::Safety),
        ("directory with content", t().raw(b'5', b"a/", b"", 0o755, 512, &[b'x'; 512]).end(), As::Safety),
        ("link with content", t().raw(b'2', b"a", b"b", 0o755, 512, &[b'x'; 512]).end(), As::Safety),
        ("link to nothing", t().symlink("a", "").end(), As::Safety),
        ("pax size larger, CVE-2025-62518", size(&[("size", "1024")]).end(), As::Safety),
        ("pax size zero, CVE-2026-33055", size(&[("size", "0")]).end(), As::Safety),
        ("pax size malformed", size(&[("size", "-8")]).end(), As::Integrity),
        ("pax path twice", size(&[("path", "b"), ("path", "../c")]).end(), As::Safety),
        ("pax path up", size(&[("path", "../canary/x")]).end(), As::Safety),
        (
            "pax path up, on a link",
            t().pax(&[("linkpath", "../../canary/file")]).hardlink("a", "b").end(),
            As::Safety,
        ),
        (
            "two pax headers",
            t().pax(&[("path", "a")]).pax(&[("mtime", "1")]).file("b", "x").end(),
            As::Safety,
        ),
        ("pax header at the end", t().pax(&[("path", "a")]).end(), As::Integrity),
        (
            "pax record too long",
            t().raw(b'x', b"p", b"", 0o644, 10, b"99 path=a\n").file("b", "x").end(),
            As::Integrity,
        ),
        (
            "pax record without end",
            t().raw(b'x', b"p", b"", 0o644, 9, b"9 path=ab").file("b", "x").end(),
            As::Integrity,
        ),
        (
            "global pax path",
            t().raw(b'g', b"p", b"", 0o644, 10, b"10 path=a\n").file("b", "x").end(),
            As::Safety,
        ),
        (
            "gnu long name up",
            t().raw(b'L', b"l", b"", 0o644, 12, b"../canary/x\0").file("a", "x").end(),
            As::Safety,
        ),
        (
            "gnu long name and pax path",
            t().raw(b'L', b"l", b"", 0o644, 2, b"b\0").pax(&[("path", "c")]).file("a", "x").end(),
            As::Safety,
        ),
        ("huge extension", t().raw(b'x', b"p", b"", 0o644, 2 << 20, &vec![b'1'; 2 << 20]).end(), As::Safety),
        ("name too long", t().pax(&[("path", &big)]).file("a", "x").end(), As::Safety),
        ("path too deep", t().pax(&[("path", &format!("{deep}f"))]).file("a", "x").end(), As::Safety),
        ("path too long", t().pax(&[("path", &long)]).file("a", "x").end(), As::Safety),
        ("name not utf-8", t().raw(b'0', b"a\xff", b"", 0o644, 0, b"").end(), As::Unsupported),
        ("whiteout", t().file(".wh.a", "").end(), As::Unsupported),
        ("opaque directory", t().file("d/.wh..wh..opq", "").end(), As::Unsupported),
        ("whiteout of nothing", t().file("d/.wh.", "").end(), As::Safety),
        ("whiteout of dot", t().file(".wh..", "").end(), As::Safety),
        ("whiteout of dot dot", t().file("d/.wh...", "").end(), As::Safety),
        ("whiteout as a parent", t().file(".wh.d/x", "").end(), As::Unsupported),
        ("entry after the end", [t().file("a", "x").end(), t().file("b", "y").end()].concat(), As::Safety),
        ("bytes after the end", [t().file("a", "x").end(), b"x".to_vec()].concat(), As::Safety),
        ("cut in a file", t().raw(b'0', b"a", b"", 0o644, 4096, b"short").0, As::Integrity),
        ("size of 8 exabytes", t().raw(b'0', b"a", b"", 0o644, u64::MAX >> 1, b"short").end(), As::Integrity),
        ("no archive", b"this is no archive".repeat(100), As::Integrity),
        (
            "checksum",
            t().file("a", "x")
                .end()
                .into_iter()
                .enumerate()
                .map(|(i, b)| if i == 0 { b'b' } else { b })
                .collect(),
            As::Integrity,
        ),
    ];
    assert!(cases.len() >= 60);
    for (name, archive, expected) in cases {
        let dir = scratch();
        canary(dir.path());
        let error = unpack(dir.path(), &archive).expect_err(name);
        assert_eq!(kind(&error), Some(expected), "{name}: {error}");
        canary_is_alive(dir.path(), name);
        let trees = fs::read_dir(dir.path().join("store/trees")).expect("trees").count();
        assert_eq!(trees, 0, "{name}: nothing half-unpacked is left");
    }
}

#[test]
fn set_id_bits_are_stripped_and_links_are_kept_as_text() {
    use std::os::unix::fs::PermissionsExt as _;
    let archive = Tar::default()
        .raw(b'5', b"./", b"", 0o755, 0, b"")
        .raw(b'0', b"su", b"", 0o6755, 1, b"x")
        .raw(b'0', b"secret", b"", 0o000, 1, b"x")
        .raw(b'5', b"locked/", b"", 0o500, 0, b"")
        .file("locked/inside", "x")
        .raw(b'5', b"tmp/", b"", 0o3777, 0, b"")
        .file("no/parents/here", "deep")
        .dir("no/")
        .symlink("up", "../../../../etc/passwd")
        .symlink("abs", "/etc/passwd")
        .hardlink("again", "no/parents/here")
        .pax(&[("path", "renamed"), ("size", "3"), ("SCHILY.xattr.security.capability", "x")])
        .file("name", "pax")
        .end();
    let dir = scratch();
    let rootfs = unpack(dir.path(), &archive).expect("unpacked");
    let root = &rootfs.layers[0];
    let mode = |name: &str| fs::symlink_metadata(root.join(name)).expect(name).permissions().mode() & 0o7777;
    assert_eq!(
        (mode("su"), mode("secret"), mode("locked"), mode("tmp"), mode("no")),
        (0o755, 0o400, 0o700, 0o755, 0o755)
    );
    assert_eq!(fs::read_to_string(root.join("again")).expect("hard link"), "deep");
    assert_eq!(fs::read_to_string(root.join("renamed")).expect("pax"), "pax");
    assert_eq!(fs::read_link(root.join("up")).expect("link"), Path::new("../../../../etc/passwd"));
    assert_eq!(fs::read_link(root.join("abs")).expect("link"), Path::new("/etc/passwd"));
}

#[test]
fn gzip_layers_are_verified_both_ways() {
    let archive = Tar::default().file("a", "gzip").end();
    let dir = scratch();
    let rootfs = unpack_as(dir.path(), GZIP, gzip(&archive), archive.clone()).expect("gzip");
    assert_eq!(fs::read_to_string(rootfs.layers[0].join("a")).expect("file"), "gzip");
    let halves = [gzip(&archive[..512]), gzip(&archive[512..])].concat();
    unpack_as(scratch().path(), GZIP, halves, archive.clone()).expect("two members");

    let other = Tar::default().file("a", "evil").end();
    let trailing = [gzip(&archive), b"trailing".to_vec()].concat();
    let cut = gzip(&archive)[..40].to_vec();
    for (name, blob, archive) in [
        ("diff id of other bytes", gzip(&other), archive.clone()),
        ("trailing bytes", trailing, archive.clone()),
        ("cut", cut, archive.clone()),
        ("not gzip", archive.clone(), archive.clone()),
    ] {
        let error = unpack_as(scratch().path(), GZIP, blob, archive).expect_err(name);
        assert_eq!(kind(&error), Some(As::Integrity), "{name}: {error}");
    }
    let error =
        unpack_as(scratch().path(), TAR, gzip(&archive), archive.clone()).expect_err("gzip said to be plain");
    assert_eq!(kind(&error), Some(As::Integrity), "{error}");
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    let error = unpack_as(scratch().path(), zstd, archive.clone(), archive).expect_err("zstd");
    assert_eq!(kind(&error), Some(As::Unsupported), "{error}");
}

#[test]
fn a_bomb_is_stopped_by_its_ratio() {
    let zeros = "\0".repeat(100 << 20);
    let archive = Tar::default().file("zeros", &zeros).end();
    let blob = gzip(&archive);
    assert!(blob.len() < archive.len() / 200);
    let error = unpack_as(scratch().path(), GZIP, blob, archive).expect_err("bomb");
    assert_eq!(kind(&error), Some(As::Safety), "{error}");
}
