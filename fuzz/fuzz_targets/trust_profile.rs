//! A trust profile and the keys in it.
#![no_main]

use invarlock_evidence::format::trust_profile::TrustProfile;
use invarlock_evidence::signing::keys::{PublicKey, SigningKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(profile) = serde_json::from_slice::<TrustProfile>(bytes) {
        for key in &profile.keys {
            drop(SigningKey::parse(key));
            if let Ok(key) = PublicKey::parse(key) {
                assert_eq!(PublicKey::parse(&key.to_pem().expect("PEM")).expect("the key"), key);
            }
        }
    }
});
