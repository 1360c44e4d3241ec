//! Hostile layers.

use super::Expected::{Integrity, Safety, Unsupported};
use super::{Attack, compressed_layer, uncompressed_layer};
use crate::common::*;

pub fn attacks() -> Vec<Attack> {
    let mut all = names();
    all.extend(links());
    all.extend(kinds());
    all.extend(extensions());
    all.extend(sparse());
    all.extend(whiteouts());
    all.extend(damage());
    all.extend(compression());
    all
}

fn tar() -> Tar {
    Tar::default()
}

/// Names that lead outside (CVE-2007-4131 and later "zip slip" issues), and names that readers interpret differently.
fn names() -> Vec<Attack> {
    let big = "x".repeat(300);
    let deep = "d/".repeat(300);
    let long = format!("{}f", "abcdefgh/".repeat(500));
    let case = |name, archive: Tar, expected| uncompressed_layer("name", name, archive.end(), expected);
    vec![
        case("parent", tar().file("../canary/x", "x"), Safety),
        case("parent inside", tar().file("a/../../canary/x", "x"), Safety),
        case("parent of a directory", tar().dir("../canary2/"), Safety),
        case("parent alone", tar().dir(".."), Safety),
        case("parent at the end", tar().dir("a/.."), Safety),
        case("many parents", tar().file(&format!("{}tmp/x", "../".repeat(25)), "x"), Safety),
        case("parent behind a leading slash", tar().file("/../canary/x", "x"), Safety),
        case("parent behind two slashes and a dot", tar().file("//./../canary/x", "x"), Safety),
        case("parent of an absolute directory", tar().dir("/a/../../canary2/"), Safety),
        case("one file, absolute and relative", tar().file("a", "1").file("/a", "2"), Safety),
        case("one file, with an empty name and without", tar().file("a/b", "1").file("a//b", "2"), Safety),
        case("one file, with '.' and without", tar().file("a/b", "1").file("a/./b", "2"), Safety),
        case("absolute file over a directory", tar().dir("a/").file("/a", "x"), Safety),
        case("empty", tar().file("", "x"), Safety),
        case("nul in a pax path", tar().pax(&[("path", "a\0b")]).file("a", "x"), Safety),
        case("empty pax path", tar().pax(&[("path", "")]).file("a", "x"), Safety),
        case("root as a file", tar().file(".", "x"), Safety),
        case("root as a file, by a slash", tar().raw(b'0', b"/", b"", 0o644, 0, b""), Safety),
        case("root as a link, by a slash", tar().symlink("/", "../../../../canary"), Safety),
        case("root as a link, CVE-2021-29136", tar().symlink(".", "/"), Safety),
        case(
            "root as a link, dot slash",
            tar().symlink("./", "../../../../canary").file("file", "dead"),
            Safety,
        ),
        case("root as a hard link", tar().file("a", "x").hardlink("./", "a"), Safety),
        case("name too long", tar().pax(&[("path", &big)]).file("a", "x"), Safety),
        case("path too deep", tar().pax(&[("path", &format!("{deep}f"))]).file("a", "x"), Safety),
        case("path too long", tar().pax(&[("path", &long)]).file("a", "x"), Safety),
        case("not utf-8", tar().raw(b'0', b"a\xff", b"", 0o644, 0, b""), Unsupported),
        case("a file name that ends in a slash", tar().file("a/", "x"), Safety),
        case(
            "prefix in a GNU header",
            tar().file("x", "x").patched(|h| {
                h[257..265].copy_from_slice(b"ustar  \0");
                h[345..348].copy_from_slice(b"../");
            }),
            Safety,
        ),
        case(
            "prefix in a header without magic",
            tar().file("x", "x").patched(|h| {
                h[257..265].fill(0);
                h[345..347].copy_from_slice(b"..");
            }),
            Safety,
        ),
        case(
            "prefix up",
            tar().file("canary/x", "x").patched(|h| h[345..347].copy_from_slice(b"..")),
            Safety,
        ),
        case(
            "star's shorter prefix",
            tar().file("x", "x").patched(|h| h[508..].copy_from_slice(b"tar\0")),
            Safety,
        ),
        case(
            "unknown magic",
            tar().file("x", "x").patched(|h| h[257..263].copy_from_slice(b"UsTaR\0")),
            Unsupported,
        ),
    ]
}

/// Writing through links, links to the outside (CVE-2001-1267, CVE-2002-0399, RUSTSEC-2018-0002, RUSTSEC-2021-0080,
/// CVE-2026-33056), and duplicate entries.
fn links() -> Vec<Attack> {
    let case = |name, archive: Tar| uncompressed_layer("link", name, archive.end(), Safety);
    vec![
        case("file through a link", tar().symlink("a", "../../../../canary").file("a/file", "dead")),
        case("file through an absolute link", tar().symlink("a", "/tmp").file("a/invarlock-x", "dead")),
        case(
            "absolute file through a link",
            tar().symlink("a", "../../../../canary").file("/a/file", "dead"),
        ),
        case(
            "absolute file through an absolute link",
            tar().symlink("/a", "/tmp").file("/a/invarlock-x", "dead"),
        ),
        case("file through an inner link", tar().dir("b/").symlink("a", "b").file("a/x", "x")),
        case(
            "file through a link of links",
            tar().symlink("b", "../../../../canary").symlink("a", "b").file("a/file", "x"),
        ),
        case("directory through a link", tar().symlink("a", "../../../../canary").dir("a/b/")),
        case("link through a link", tar().symlink("a", "..").symlink("a/b", "..")),
        case(
            "hard link whose parent is a link",
            tar().file("f", "x").symlink("a", "..").hardlink("a/b", "f"),
        ),
        case("whiteout through a link", tar().symlink("a", "../../../../canary").file("a/.wh.file", "")),
        case(
            "opaque directory through a link",
            tar().symlink("a", "../../../../canary").file("a/.wh..wh..opq", ""),
        ),
        case("file over a link", tar().symlink("a", "../../../../canary/file").file("a", "dead")),
        case("directory over a link, CVE-2026-33056", tar().symlink("a", "../../../../canary").dir("a/")),
        case("modes through a link", tar().symlink("a", "/tmp").raw(b'5', b"a", b"", 0o777, 0, b"")),
        case("link over a directory", tar().dir("a/").symlink("a", "..")),
        case("link over a full directory", tar().file("a/b", "x").symlink("a", "..").file("a/c", "x")),
        case("file over a file", tar().file("a", "1").file("a", "2")),
        case("file over a directory", tar().dir("a/").file("a", "2")),
        case("directory over a file", tar().file("a", "1").dir("a/")),
        case("file below a file", tar().file("a", "1").file("a/b", "2")),
        case("hard link over a file", tar().file("a", "1").file("b", "2").hardlink("a", "b")),
        case("hard link up", tar().hardlink("a", "../../../../canary/file")),
        case("hard link absolute", tar().hardlink("a", "/etc/passwd")),
        case("hard link to nothing", tar().hardlink("a", "b")),
        case("hard link to a later entry", tar().hardlink("a", "b").file("b", "x")),
        case("hard link through a link", tar().symlink("s", "/etc").hardlink("a", "s/passwd")),
        case("hard link up behind a slash", tar().hardlink("a", "/../../../../canary/file")),
        case(
            "file through a hard link to a link",
            tar().symlink("s", "../../../../canary").hardlink("a", "s").file("a/file", "dead"),
        ),
        case(
            "directory over a hard link to a link",
            tar().symlink("s", "../../../../canary").hardlink("a", "s").dir("a/"),
        ),
        case(
            "hard link to a link, then written",
            tar().symlink("s", "../../../../canary/file").hardlink("a", "s").file("a", "dead"),
        ),
        case("hard link to a directory", tar().dir("d/").hardlink("a", "d")),
        case("hard link to the root", tar().hardlink("a", "./")),
        case("hard link to itself", tar().hardlink("a", "a")),
        case("hard link to a whiteout", tar().file(".wh.b", "").hardlink("a", "b")),
        case("hard link to a whiteout's name", tar().file(".wh.b", "").hardlink("a", ".wh.b")),
        case("hard link with content", tar().file("b", "x").raw(b'1', b"a", b"b", 0o644, 512, &[b'x'; 512])),
        case("link with content", tar().raw(b'2', b"a", b"b", 0o755, 512, &[b'x'; 512])),
        case("link to nothing", tar().symlink("a", "")),
    ]
}

/// Entries that are neither files nor directories nor links.
fn kinds() -> Vec<Attack> {
    let case = |name, kind, path: &[u8], expected| {
        uncompressed_layer("kind", name, tar().raw(kind, path, b"", 0o666, 0, b"").end(), expected)
    };
    vec![
        case("character device", b'3', b"null", Safety),
        case("block device", b'4', b"sda", Safety),
        case("device 0:0, which overlayfs treats as a whiteout", b'3', b"etc", Safety),
        case("fifo", b'6', b"pipe", Safety),
        case("contiguous file", b'7', b"a", Safety),
        case("volume label", b'V', b"a", Safety),
        case("multi-volume continuation", b'M', b"a", Safety),
        case("directory of an incremental archive", b'D', b"a/", Safety),
        case("solaris extension header", b'X', b"a", Safety),
        case("unknown kind", b'Z', b"a", Safety),
        uncompressed_layer(
            "kind",
            "directory with content",
            tar().raw(b'5', b"a/", b"", 0o755, 512, &[b'x'; 512]).end(),
            Safety,
        ),
    ]
}

/// Headers that contradict each other: readers take sizes and names from different headers (CVE-2025-62518, CVE-2026-33055).
fn extensions() -> Vec<Attack> {
    let case = |name, archive: Tar, expected| uncompressed_layer("extension", name, archive.end(), expected);
    let size = |records: &[(&str, &str)]| tar().pax(records).file("a", "12345678");
    let nested = tar().file("../canary/file", "dead").end();
    let smuggled = String::from_utf8(nested).expect("text");
    vec![
        case("pax size larger, CVE-2025-62518", size(&[("size", "1024")]), Safety),
        case("pax size zero, CVE-2026-33055", size(&[("size", "0")]), Safety),
        case(
            "an archive in an archive whose header has size 0",
            tar().pax(&[("size", &smuggled.len().to_string())]).raw(
                b'0',
                b"a",
                b"",
                0o644,
                0,
                smuggled.as_bytes(),
            ),
            Safety,
        ),
        case("pax size negative", size(&[("size", "-8")]), Integrity),
        case("pax size with a sign", size(&[("size", "+8")]), Integrity),
        case("pax size hexadecimal", size(&[("size", "0x8")]), Integrity),
        case("pax size empty", size(&[("size", "")]), Integrity),
        case("pax size of 20 digits", size(&[("size", "18446744073709551624")]), Integrity),
        case("pax size twice", size(&[("size", "8"), ("size", "0")]), Safety),
        case("pax path twice", size(&[("path", "b"), ("path", "../c")]), Safety),
        case("pax path up", size(&[("path", "../canary/x")]), Safety),
        case("pax link up", tar().pax(&[("linkpath", "../../canary/file")]).hardlink("a", "b"), Safety),
        case("two pax headers", tar().pax(&[("path", "a")]).pax(&[("mtime", "1")]).file("b", "x"), Safety),
        case("pax header at the end", tar().pax(&[("path", "a")]), Integrity),
        case(
            "pax record too long",
            tar().raw(b'x', b"p", b"", 0o644, 10, b"99 path=a\n").file("b", "x"),
            Integrity,
        ),
        case(
            "pax record of length 0",
            tar().raw(b'x', b"p", b"", 0o644, 9, b"0 path=a\n").file("b", "x"),
            Integrity,
        ),
        case(
            "pax record whose length overflows",
            tar().raw(b'x', b"p", b"", 0o644, 28, b"18446744073709551616 path=a\n").file("b", "x"),
            Integrity,
        ),
        case(
            "pax record without a newline",
            tar().raw(b'x', b"p", b"", 0o644, 9, b"9 path=ab").file("b", "x"),
            Integrity,
        ),
        case(
            "pax record without '='",
            tar().raw(b'x', b"p", b"", 0o644, 9, b"9 pathxx\n").file("b", "x"),
            Integrity,
        ),
        case("global pax path", tar().raw(b'g', b"p", b"", 0o644, 10, b"10 path=a\n").file("b", "x"), Safety),
        case("global pax size", tar().raw(b'g', b"p", b"", 0o644, 10, b"10 size=0\n").file("b", "x"), Safety),
        case(
            "gnu long name up",
            tar().raw(b'L', b"l", b"", 0o644, 12, b"../canary/x\0").file("a", "x"),
            Safety,
        ),
        case(
            "gnu long name with a nul",
            tar().raw(b'L', b"l", b"", 0o644, 6, b"a\0/../\0").file("a", "x"),
            Safety,
        ),
        case(
            "gnu long name twice",
            tar()
                .raw(b'L', b"l", b"", 0o644, 2, b"b\0")
                .raw(b'L', b"l", b"", 0o644, 2, b"c\0")
                .file("a", "x"),
            Safety,
        ),
        case(
            "gnu long link up",
            tar().raw(b'K', b"l", b"", 0o644, 12, b"../canary/x\0").hardlink("a", "b"),
            Safety,
        ),
        case(
            "gnu long name and pax path",
            tar().raw(b'L', b"l", b"", 0o644, 2, b"b\0").pax(&[("path", "c")]).file("a", "x"),
            Safety,
        ),
        case(
            "long name of 2 MiB",
            tar().raw(b'L', b"l", b"", 0o644, 2 << 20, &vec![b'a'; 2 << 20]).file("a", "x"),
            Safety,
        ),
        case(
            "long name of 8 EiB",
            tar().raw(b'L', b"l", b"", 0o644, u64::MAX >> 1, b"short").file("a", "x"),
            Safety,
        ),
        case("pax header of 2 MiB", tar().raw(b'x', b"p", b"", 0o644, 2 << 20, &vec![b'1'; 2 << 20]), Safety),
        case("attribute without a name", tar().pax(&[("SCHILY.xattr.user.", "x")]).file("a", "x"), Safety),
        case(
            "65 attributes",
            {
                let names: Vec<String> = (0..65).map(|i| format!("SCHILY.xattr.user.a{i}")).collect();
                tar().pax(&names.iter().map(|name| (name.as_str(), "x")).collect::<Vec<_>>()).file("a", "x")
            },
            Safety,
        ),
        case(
            "attribute larger than any file system supports",
            tar().pax(&[("SCHILY.xattr.user.a", &"x".repeat(100_000))]).file("a", "x"),
            Safety,
        ),
    ]
}

/// Sparse files.
fn sparse() -> Vec<Attack> {
    let case = |name, archive: Tar| uncompressed_layer("sparse", name, archive.end(), Safety);
    let pax = |records: &[(&str, &str)]| tar().pax(records).file("a", "12345678");
    let map = |size: &str, map: &str| {
        let count = (map.split(',').count() / 2).to_string();
        pax(&[("GNU.sparse.size", size), ("GNU.sparse.numblocks", &count), ("GNU.sparse.map", map)])
    };
    vec![
        case("bomb of 4 EiB", map("4611686018427387904", "0,8,4611686018427387904,0")),
        case("segments that overlap", map("100", "0,8,4,0")),
        case("segments in descending order", map("100", "50,4,0,4")),
        case("segment beyond the end", map("10", "4,8")),
        case("segment that overflows", map("100", "9223372036854775807,9223372036854775807")),
        case("segments of more than is stored", map("100", "0,8,50,8")),
        case("segments of less than is stored", map("100", "0,4")),
        case(
            "map with an odd count",
            pax(&[("GNU.sparse.size", "9"), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "0,8,9")]),
        ),
        case(
            "count that differs from the map",
            pax(&[("GNU.sparse.size", "9"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.map", "0,8")]),
        ),
        case("map without a size", pax(&[("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "0,8")])),
        case(
            "sparse name up",
            pax(&[
                ("GNU.sparse.name", "../canary/x"),
                ("GNU.sparse.size", "8"),
                ("GNU.sparse.numblocks", "1"),
                ("GNU.sparse.map", "0,8"),
            ]),
        ),
        case(
            "sparse directory",
            tar().pax(&[("GNU.sparse.size", "0"), ("GNU.sparse.numblocks", "0")]).dir("a/"),
        ),
        case("old map without a size", tar().raw(b'S', b"a", b"", 0o644, 8, b"12345678")),
        case(
            "old map beyond the end",
            tar().raw(b'S', b"a", b"", 0o644, 8, b"12345678").patched(|h| {
                h[257..265].copy_from_slice(b"ustar  \0");
                h[386..398].copy_from_slice(b"00000000004\0");
                h[398..410].copy_from_slice(b"00000000010\0");
                h[483..495].copy_from_slice(b"00000000010\0");
            }),
        ),
        case(
            "extension of an old map that is not full",
            tar().raw(b'S', b"a", b"", 0o644, 8, b"12345678").patched(|h| {
                h[257..265].copy_from_slice(b"ustar  \0");
                h[482] = 1;
            }),
        ),
    ]
}

/// Malformed whiteouts.
fn whiteouts() -> Vec<Attack> {
    let case = |name, archive: Tar, expected| uncompressed_layer("whiteout", name, archive.end(), expected);
    vec![
        case("of nothing", tar().file("d/.wh.", ""), Safety),
        case("of dot", tar().file(".wh..", ""), Safety),
        case("of dot dot", tar().file("d/.wh...", ""), Safety),
        case("outside", tar().file("../.wh.canary", ""), Safety),
        case("of a path outside", tar().file(".wh.../canary", ""), Safety),
        case("as a parent", tar().file(".wh.d/x", ""), Safety),
        case("opaque as a parent", tar().file(".wh..wh..opq/x", ""), Safety),
        case("of a whiteout", tar().file(".wh..wh.a", ""), Unsupported),
        case("twice", tar().file(".wh.a", "").file(".wh.a", ""), Safety),
        case("twice, of two types", tar().symlink(".wh.a", "/etc").dir(".wh.a/"), Safety),
        case("with content", tar().file(".wh.a", "x"), Safety),
        case("that is a directory with an entry", tar().dir(".wh.a/").file(".wh.a/x", ""), Safety),
        case(
            "that is a link, as a parent",
            tar().symlink(".wh.a", "../../../../canary").file(".wh.a/file", "dead"),
            Safety,
        ),
        case("that is a hard link up", tar().hardlink(".wh.a", "../../../../canary/file"), Safety),
        case("that is a link, linked", tar().symlink(".wh.a", "/etc/passwd").hardlink("b", ".wh.a"), Safety),
        case("of a path outside, absolute", tar().file("/../.wh.canary", ""), Safety),
    ]
}

/// Truncated archives, trailing data and invalid numbers.
fn damage() -> Vec<Attack> {
    let case = |name, archive: Vec<u8>, expected| uncompressed_layer("damage", name, archive, expected);
    let number = |at: std::ops::Range<usize>, value: &'static [u8]| {
        tar().file("a", "x").patched(move |h| {
            h[at.clone()].fill(0);
            h[at.start..at.start + value.len()].copy_from_slice(value);
        })
    };
    vec![
        case(
            "entry after the end",
            [tar().file("a", "x").end(), tar().file("b", "y").end()].concat(),
            Safety,
        ),
        case(
            "entry after one empty block",
            [tar().file("a", "x").0, vec![0; 512], tar().file("b", "y").end()].concat(),
            Safety,
        ),
        case("trailing data", [tar().file("a", "x").end(), b"x".to_vec()].concat(), Safety),
        case("truncated in a file", tar().raw(b'0', b"a", b"", 0o644, 4096, b"short").0, Integrity),
        case(
            "truncated in a header",
            {
                let mut archive = tar().file("a", "x").0;
                archive.extend(&tar().file("b", "x").0[..100]);
                archive
            },
            Integrity,
        ),
        case("size of 8 EiB", tar().raw(b'0', b"a", b"", 0o644, u64::MAX >> 1, b"short").end(), Safety),
        case(
            "size larger than the archive",
            tar().raw(b'0', b"a", b"", 0o644, 60 << 20, b"short").end(),
            Integrity,
        ),
        case("negative size, base 256", number(124..136, &[0xff; 12]).end(), Integrity),
        case(
            "size of 95 bits",
            number(124..136, b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").end(),
            Integrity,
        ),
        case("negative size, octal", number(124..136, b"-0000000001\0").end(), Integrity),
        case("blank size", number(124..136, b"           \0").end(), Integrity),
        case("no size", number(124..136, b"").end(), Integrity),
        case("decimal size", number(124..136, b"00000000009\0").end(), Integrity),
        case("size with underscores", number(124..136, b"0_0000000_1\0").end(), Integrity),
        case("two sizes", number(124..136, b"1\x000000002\0").end(), Integrity),
        case("invalid owner, which Python reads as the end", number(108..116, b"0=00000\0").end(), Integrity),
        case("invalid time", number(136..148, b"yesterday\0").end(), Integrity),
        case("invalid device number", number(329..337, b"x").end(), Integrity),
        case("empty archive", Vec::new(), Integrity),
        case("invalid mode", number(100..108, b"rwxr-xr\0").end(), Integrity),
        case(
            "wrong checksum",
            {
                let mut archive = tar().file("a", "x").end();
                archive[0] = b'b';
                archive
            },
            Integrity,
        ),
        case(
            "checksum of signed bytes",
            {
                let mut archive = tar().raw(b'0', "\u{e4}".as_bytes(), b"", 0o644, 0, b"").0;
                let signed: i64 = archive[..512]
                    .iter()
                    .enumerate()
                    .map(|(i, b)| if (148..156).contains(&i) { 32 } else { i64::from(b.cast_signed()) })
                    .sum();
                archive[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
                archive.extend([0; 1024]);
                archive
            },
            Integrity,
        ),
        case("not an archive", b"this is no archive".repeat(100), Integrity),
        case("a zip archive", [b"PK\x03\x04".to_vec(), vec![1; 1020]].concat(), Integrity),
    ]
}

/// Compressed layers with other content than declared, and decompression bombs (E6 and E7 of docs/attacks.md).
fn compression() -> Vec<Attack> {
    let case = |name, media_type, blob, archive, expected| {
        compressed_layer("compression", name, media_type, blob, archive, expected)
    };
    let archive = tar().file("a", "content").end();
    let other = tar().file("a", "evil").end();
    let bomb = tar().file("bytes", &"x".repeat(100 << 20)).end();
    let with_tail = |blob: Vec<u8>, tail: &[u8]| [blob, tail.to_vec()].concat();
    // A zstd frame with a window of 2 GiB and one empty block.
    let window = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3][..], &[1, 0, 0]].concat();
    vec![
        case("gzip of another archive", GZIP, gzip(&other), archive.clone(), Integrity),
        case("zstd of another archive", ZSTD, zstd(&other), archive.clone(), Integrity),
        case(
            "gzip with trailing data",
            GZIP,
            with_tail(gzip(&archive), b"trailing"),
            archive.clone(),
            Integrity,
        ),
        case(
            "gzip with trailing zeros",
            GZIP,
            with_tail(gzip(&archive), &[0; 512]),
            archive.clone(),
            Integrity,
        ),
        case(
            "gzip followed by another member",
            GZIP,
            with_tail(gzip(&archive), &gzip(&other)),
            archive.clone(),
            Safety,
        ),
        case(
            "zstd with trailing data",
            ZSTD,
            with_tail(zstd(&archive), b"trailing"),
            archive.clone(),
            Integrity,
        ),
        case(
            "zstd followed by another frame",
            ZSTD,
            with_tail(zstd(&archive), &zstd(&other)),
            archive.clone(),
            Safety,
        ),
        case("truncated gzip", GZIP, gzip(&archive)[..40].to_vec(), archive.clone(), Integrity),
        case(
            "gzip without its checksum",
            GZIP,
            {
                let blob = gzip(&archive);
                blob[..blob.len() - 8].to_vec()
            },
            archive.clone(),
            Integrity,
        ),
        case(
            "gzip with a wrong checksum",
            GZIP,
            {
                let mut blob = gzip(&archive);
                let at = blob.len() - 8;
                blob[at] ^= 1;
                blob
            },
            archive.clone(),
            Integrity,
        ),
        case(
            "truncated zstd",
            ZSTD,
            {
                let blob = zstd(&archive);
                blob[..blob.len() - 4].to_vec()
            },
            archive.clone(),
            Integrity,
        ),
        case(
            "uncompressed of another archive, declared as gzip",
            GZIP,
            other.clone(),
            archive.clone(),
            Integrity,
        ),
        case(
            "gzip of another archive, declared as uncompressed",
            TAR,
            gzip(&other),
            archive.clone(),
            Integrity,
        ),
        case("zstd of another archive, declared as gzip", GZIP, zstd(&other), archive.clone(), Integrity),
        case("gzip bomb", GZIP, gzip(&bomb), bomb.clone(), Safety),
        case("gzip bomb, declared as uncompressed", TAR, gzip(&bomb), bomb.clone(), Safety),
        case("zstd bomb", ZSTD, zstd(&bomb), bomb, Safety),
        case(
            "xz, declared as gzip",
            GZIP,
            b"\xfd7zXZ\0 and what follows".to_vec(),
            archive.clone(),
            Unsupported,
        ),
        case("zstd window of 2 GiB", ZSTD, window, archive.clone(), Unsupported),
        case("gzip of gzip", GZIP, gzip(&gzip(&archive)), gzip(&archive), Integrity),
        case("xz", "application/vnd.oci.image.layer.v1.tar+xz", archive.clone(), archive, Unsupported),
    ]
}
