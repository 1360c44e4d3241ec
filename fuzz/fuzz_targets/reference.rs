//! Parses text as an image reference. An accepted reference has the same text when it is printed.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| invarlock_images::fuzz::reference(text));
