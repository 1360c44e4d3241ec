//! Bytes as a layer: refused, or unpacked as its record says; and nothing beside it is touched. The first byte says how it is packed.
#![no_main]

use invarlock_images::Digest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let kind = match first % 4 {
        0 => "application/vnd.oci.image.layer.v1.tar+gzip",
        1 => "application/vnd.oci.image.layer.v1.tar+zstd",
        _ => "application/vnd.oci.image.layer.v1.tar",
    };
    let dir = tempfile::tempdir().expect("a directory");
    let (canary, place) = (dir.path().join("canary"), dir.path().join("place"));
    std::fs::write(&canary, "alive").expect("canary");
    std::fs::create_dir(&place).expect("a place");
    // Right for a plain layer, so that it can be accepted.
    invarlock_images::fuzz::layer(bytes, kind, Digest::of(bytes), &place);
    assert_eq!(std::fs::read(&canary).expect("canary"), b"alive");
    assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 2);
});
