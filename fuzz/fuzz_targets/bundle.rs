//! Bytes as an archive of an image: read, or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    invarlock_images::fuzz::bundle(bytes, dir.path());
});
