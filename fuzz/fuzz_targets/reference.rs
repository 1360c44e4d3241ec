//! Text as a reference: refused, or written as it was read.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| invarlock_images::fuzz::reference(text));
