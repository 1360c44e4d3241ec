//! Reads bytes as the configuration of an OCI bundle.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invarlock_runtime::fuzz::bundle_config(bytes));
