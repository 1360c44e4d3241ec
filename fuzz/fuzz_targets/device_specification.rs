//! A specification of the Container Device Interface: JSON or YAML that the owner of the machine or a user wrote.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| invarlock_launcher::fuzz_device_specification(bytes));
