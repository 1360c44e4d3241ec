//! What registries, name servers and files of credentials say.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invarlock_registry::fuzz::bytes(bytes));
