//! Parses bytes as an image configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invarlock_images::fuzz::config(bytes));
