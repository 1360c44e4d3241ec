//! Signed evidence: no flipped bit of the attestation is accepted, and no lock that the plan does not keep.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::made::honest;
use invarlock_evidence::attestation;
use invarlock_evidence::policy::Profile;
use invarlock_evidence::signing::dsse::Envelope;
use invarlock_evidence::signing::keys::SigningKey;
use invarlock_evidence::verify::reproduce::{Amount, Reproduction};
use invarlock_evidence::verify::{Assurance, VerifyOptions, envelope, success_line, verify_report};
use std::path::Path;

/// A copy of the evidence of a real run, signed by a new key.
fn signed() -> (tempfile::TempDir, SigningKey, Vec<u8>) {
    let (dir, key) = (tempfile::tempdir().unwrap(), SigningKey::generate().unwrap());
    for entry in std::fs::read_dir(honest("root")).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let keep = VerifyOptions { profile: Profile::Dev, keep_verified: true, ..VerifyOptions::default() };
    let statement = verify_report(dir.path(), &keep).statement.unwrap();
    let bytes = Envelope::sign(statement, &key).to_bytes();
    (dir, key, bytes)
}

fn assurance(dir: &Path, attestation: &[u8], options: &VerifyOptions) -> Assurance {
    std::fs::write(dir.join(attestation::FILE_NAME), attestation).unwrap();
    verify_report(dir, options).assurance
}

#[test]
fn a_flipped_bit_of_the_attestation_is_refused() {
    let (dir, key, bytes) = signed();
    let trusting =
        VerifyOptions { profile: Profile::Dev, keys: vec![key.public()], ..VerifyOptions::default() };
    assert_eq!(assurance(dir.path(), &bytes, &trusting), Assurance::Signed);
    // Every bit of an envelope is flipped by the unit test of DSSE; here, one bit of every eleventh byte.
    for place in (0..bytes.len()).step_by(11) {
        let mut changed = bytes.clone();
        changed[place] ^= 1 << (place % 8);
        let found = assurance(dir.path(), &changed, &trusting);
        assert!(found < Assurance::Signed, "byte {place}: {found:?}");
    }
}

#[test]
fn the_signature_of_another_statement_is_refused() {
    let (dir, key, bytes) = signed();
    let envelope = Envelope::parse(&bytes).unwrap();
    let text = String::from_utf8(envelope.payload().to_vec()).unwrap();
    for (from, to) in [
        ("\"passed\":true", "\"passed\":false"),
        ("\"profile\":\"dev\"", "\"profile\":\"ci\""),
        ("\"assuranceLevel\":\"self_attested\"", "\"assuranceLevel\":\"third_party\""),
        ("baseline.report.json", "baseline.report.jsom"),
    ] {
        assert!(text.contains(from), "{from}: {text}");
        let other = Envelope::sign(text.replacen(from, to, 1).into_bytes(), &key).to_bytes();
        let options = VerifyOptions { profile: Profile::Dev, ..VerifyOptions::default() };
        assert_eq!(assurance(dir.path(), &other, &options), Assurance::Failed, "{from}");
    }
}

#[test]
fn signed_evidence_that_is_reproduced_names_its_signers() {
    let (dir, key, bytes) = signed();
    let other = SigningKey::generate().unwrap();
    let mut both = Envelope::parse(&bytes).unwrap();
    both.add_signature(&other);
    std::fs::write(dir.path().join(attestation::FILE_NAME), both.to_bytes()).unwrap();
    let reproduced = |keys: Vec<_>| {
        let options =
            VerifyOptions { profile: Profile::Dev, keys, keep_verified: true, ..VerifyOptions::default() };
        let mut verdict = verify_report(dir.path(), &options);
        let tier = verdict.judged.unwrap().tier;
        let plan = Reproduction::plan(verdict.verified.as_ref().unwrap(), tier, Amount::All);
        verdict.reproduced(plan, Vec::new());
        verdict
    };
    let (trusted, unknown) = (reproduced(vec![key.public()]), reproduced(Vec::new()));
    let (line, fingerprint) = (success_line(&trusted), key.public().fingerprint());
    assert!(line.ends_with(&format!(" assurance=reproduced signers={fingerprint}")), "{line}");
    assert!(trusted.meaning().ends_with("; signed by a trusted key"), "{}", trusted.meaning());
    assert!(success_line(&unknown).ends_with(" assurance=reproduced"), "{}", success_line(&unknown));
    assert!(!unknown.meaning().contains("signed"), "{}", unknown.meaning());
    for (verdict, signed) in [(trusted, true), (unknown, false)] {
        let row = serde_json::to_value(envelope(&[verdict], "")).unwrap()["results"][0].clone();
        assert_eq!(row["assurance"], "reproduced");
        for signer in row["about"]["signers"].as_array().unwrap() {
            assert_eq!(signer["trusted"], signed && signer["key"] == *fingerprint, "{signer}");
        }
    }
}
