//! Parses bytes as an image manifest.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invarlock_images::fuzz::manifest(bytes));
