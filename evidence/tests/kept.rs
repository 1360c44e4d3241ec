//! Signed files that an earlier build wrote stay valid: by their schemas, by their signatures, and for the verifier.
//!
//! `data/kept` was written by version 0.1.0 on 2026-11-28, from `data/honest/user`. The private keys do not exist any more.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_evidence::pack::archive;
use invarlock_evidence::pack::{FINAL_VERDICT, Inspection, MANIFEST, SIGNATURE};
use invarlock_evidence::policy::Profile;
use invarlock_evidence::signing::dsse::Envelope;
use invarlock_evidence::signing::keys::PublicKey;
use invarlock_evidence::verify::{Assurance, VerifyOptions, verify_report};
use serde_json::Value;
use std::path::Path;

fn kept(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kept").join(name)).unwrap()
}

fn key(name: &str) -> PublicKey {
    PublicKey::parse(&String::from_utf8(kept(name)).unwrap()).unwrap()
}

/// Checks a document with a published schema.
fn validate(schema: &str, document: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas").join(schema);
    let read: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let document: Value = serde_json::from_slice(document).unwrap();
    let validator = jsonschema::validator_for(&read).unwrap();
    let errors: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{schema}: {errors:?}");
    assert!(!validator.is_valid(&serde_json::json!({"unknown": 1})), "{schema} accepts everything");
}

#[test]
fn kept_envelopes_are_valid_and_signed() {
    for (name, schema, signer) in [
        ("receipt.json", "receipt-v1.schema.json", "verifier.pub"),
        ("plan.lock.json", "plan-lock-v1.schema.json", "author.pub"),
    ] {
        let bytes = kept(name);
        validate("dsse-envelope-v1.schema.json", &bytes);
        let envelope = Envelope::parse(&bytes).unwrap();
        assert!(envelope.signed_by(&key(signer)).unwrap(), "{name}");
        validate(schema, envelope.payload());
    }
}

#[test]
fn the_kept_pack_is_valid_and_verifies() {
    let files = archive::read(&*kept("pack.tar")).unwrap();
    validate("evidence-pack-v1.schema.json", files.get(MANIFEST).unwrap());
    validate("evidence-pack-signature-v1.schema.json", files.get(SIGNATURE).unwrap());
    validate("final-verdict-v1.schema.json", files.get(FINAL_VERDICT).unwrap());
    let found = Inspection::of(&files).unwrap();
    let author = key("author.pub");
    assert_eq!(found.signature_fault(&[author.fingerprint()]), None);
    assert_eq!(found.integrity_faults(), Vec::<String>::new());

    let dir = tempfile::tempdir().unwrap();
    let [report] = &found.reports[..] else { panic!("{:?}", found.reports) };
    let above = report.rsplit_once('/').unwrap().0;
    for (path, bytes) in files.iter() {
        if let Some(name) = path.strip_prefix(above) {
            std::fs::write(dir.path().join(name.trim_start_matches('/')), bytes).unwrap();
        }
    }
    let options = VerifyOptions { profile: Profile::Dev, keys: vec![author], ..VerifyOptions::default() };
    let verdict = verify_report(dir.path(), &options);
    assert_eq!((verdict.assurance, verdict.errors), (Assurance::Signed, Vec::new()));
}
