//! Parses bytes as responses of registries and name servers, and as credential files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invarlock_registry::fuzz::bytes(bytes));
