//! Extracts layers of entries that the bytes select: directories, files, symbolic links, hard links, whiteouts and opaque directories. The
//! names are few, so that entries often replace each other. An accepted layer matches its record.
#![no_main]

use invarlock_images::Digest;
use libfuzzer_sys::fuzz_target;
use tar::{EntryType, Header};

const NAMES: [&str; 12] = [
    "a",
    "b",
    "a/a",
    "a/b",
    "b/a",
    "a/a/a",
    ".wh.a",
    ".wh.b",
    "a/.wh.a",
    "a/.wh.b",
    "a/.wh..wh..opq",
    ".wh..wh..opq",
];

fuzz_target!(|choices: &[u8]| {
    let mut archive = tar::Builder::new(Vec::new());
    for choice in choices.chunks_exact(2).take(40) {
        let name = NAMES[usize::from(choice[0]) % NAMES.len()];
        let target = NAMES[usize::from(choice[1] >> 3) % 6];
        let mut header = Header::new_ustar();
        header.set_path(name).expect("name");
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        let kind = match choice[1] % 8 {
            0 | 1 => EntryType::Directory,
            2 => EntryType::Symlink,
            3 => EntryType::Link,
            _ => EntryType::Regular,
        };
        header.set_entry_type(kind);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name(target).expect("target");
        }
        header.set_cksum();
        archive.append(&header, std::io::empty()).expect("entry");
    }
    let bytes = archive.into_inner().expect("archive");
    let dir = tempfile::tempdir().expect("a temporary directory");
    invarlock_images::fuzz::layer(
        &bytes,
        "application/vnd.oci.image.layer.v1.tar",
        Digest::of(&bytes),
        dir.path(),
    );
});
