//! A DSSE envelope and the plan lock in it: only bytes that this program writes are accepted.
#![no_main]

use invarlock_evidence::plan_lock::PlanLock;
use invarlock_evidence::signing::dsse::Envelope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert_eq!(envelope.to_bytes(), bytes);
        drop(PlanLock::read(&envelope));
    }
});
