//! Parses bytes as an image index.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invarlock_images::fuzz::index(bytes));
