//! The evaluation report of otherwise honest evidence.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| invarlock_fuzz::verify_with("evaluation.report.json", bytes));
