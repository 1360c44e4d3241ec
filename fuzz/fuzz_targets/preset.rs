//! A preset: YAML that the caller wrote or copied.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| invarlock_launcher::fuzz_preset(text));
