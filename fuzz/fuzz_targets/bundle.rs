//! Imports bytes as an image archive.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    invarlock_images::fuzz::bundle(bytes, dir.path());
});
