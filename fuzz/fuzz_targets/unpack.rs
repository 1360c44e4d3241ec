//! Extracts bytes as a layer. An accepted layer matches its record, and no file outside of the target directory changes. The first
//! byte selects the compression.
#![no_main]

use invarlock_images::Digest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let media_type = match first % 4 {
        0 => "application/vnd.oci.image.layer.v1.tar+gzip",
        1 => "application/vnd.oci.image.layer.v1.tar+zstd",
        _ => "application/vnd.oci.image.layer.v1.tar",
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (canary, target) = (dir.path().join("canary"), dir.path().join("target"));
    std::fs::write(&canary, "alive").expect("canary");
    std::fs::create_dir(&target).expect("a target directory");
    // The diff id is correct for an uncompressed layer, so such a layer can be accepted.
    invarlock_images::fuzz::layer(bytes, media_type, Digest::of(bytes), &target);
    assert_eq!(std::fs::read(&canary).expect("canary"), b"alive");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a listing").count(), 2);
});
