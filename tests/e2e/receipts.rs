//! Receipts: signed statements of what was verified under which demands.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_evidence::numerics::digest::{canonical_json, sha256_hex};
use invarlock_tests::{Place, Ran, read_json, small};
use serde_json::{Value, json};

/// Signed evidence of a few windows, and the keys of its author `alice` and of the verifier `bob`.
fn place() -> Place {
    let place = small::place();
    for key in ["alice", "bob"] {
        place.run(&["advanced", "attest", "keygen", &format!("{key}.key")]).expect(0);
    }
    small::evaluate(&place, &["--signing-key", "alice.key"]).expect(0);
    place
}

fn verify(place: &Place, file: &str, more: &[&str]) -> Ran {
    let args = ["verify", "--receipt", file, "--verifier-key", "bob.key"];
    place.run(&[&args[..], more, &["eval"]].concat())
}

/// The statement of a signed file.
fn statement(place: &Place, file: &str) -> Value {
    place.run(&["advanced", "attest", "inspect", file]).expect(0).json()["statement"].clone()
}

#[test]
fn a_receipt_names_evidence_demands_and_result() {
    let place = place();
    verify(
        &place,
        "r.json",
        &["--profile", "dev", "--key", "alice.pub", "--subject", "subject", "--max-age", "2d"],
    )
    .expect(0);
    place.run(&["advanced", "attest", "verify", "--key", "bob.pub", "r.json"]).expect(0);
    let receipt = statement(&place, "r.json");
    assert_eq!(receipt["predicateType"], "https://slsa.dev/verification_summary/v1");
    let attested = statement(&place, "eval/runtime.attestation.json");
    assert_eq!(receipt["subject"], attested["subject"], "the evidence, the checkpoints and the dataset");
    let predicate = &receipt["predicate"];
    assert_eq!(predicate["verificationResult"], "PASSED");
    assert_eq!(predicate["verifiedLevels"], json!(["INVARLOCK_SIGNED"]));
    assert_eq!(predicate["inputAttestations"][0]["name"], "runtime.attestation.json");
    let own = &predicate["invarlock_verification"];
    assert_eq!(own["matched"], json!(["subject"]));
    assert_eq!((&own["profile"], &own["tier"]), (&json!("dev"), &json!("balanced")));
    assert_eq!(own["trustProfile"]["max_age"], "48h");

    let canonical = canonical_json(&own["trustProfile"]);
    assert_eq!(predicate["policy"]["digest"]["sha256"], sha256_hex(canonical.as_bytes()));

    // The trust profile in the receipt requires the same as the options.
    place.write("trust.json", serde_json::to_string(&own["trustProfile"]).unwrap().as_bytes());
    verify(&place, "second.json", &["--trust", "trust.json"]).expect(0);
    let second = statement(&place, "second.json");
    assert_eq!(second["predicate"]["invarlock_verification"], *own);
    assert_eq!(second["predicate"]["policy"]["name"], "trust.json");
}

#[test]
fn refused_evidence_gets_no_receipt() {
    let place = place();
    verify(&place, "r.json", &[]).expect(1);
    verify(&place, "r.json", &["--profile", "dev", "--key", "bob.pub"]).expect(1);
    let mut report = std::fs::read(place.work("eval/evaluation.report.json")).unwrap();
    let good = report.clone();
    report[100] ^= 1;
    std::fs::write(place.work("eval/evaluation.report.json"), report).unwrap();
    assert_ne!(verify(&place, "r.json", &["--profile", "dev"]).code, 0);
    assert!(!place.work("r.json").exists());

    // An earlier receipt is neither replaced nor left to be taken for a new one.
    std::fs::write(place.work("eval/evaluation.report.json"), good).unwrap();
    place.write("r.json", b"earlier");
    verify(&place, "r.json", &["--profile", "dev"]).expect(2).one_error(&[
        "r.json",
        "the file exists",
        "help: ",
    ]);
    verify(&place, "new.json", &["--profile", "dev", "eval"]).expect(2).one_error(&["2 reports", "help: "]);
    let args = ["verify", "--receipt", "new.json", "eval"];
    assert!(place.run(&args).expect(2).err.contains("--verifier-key"));
    assert!(!place.work("new.json").exists());
}

#[test]
fn every_flipped_byte_of_a_receipt_is_refused() {
    let place = place();
    verify(&place, "r.json", &["--profile", "dev"]).expect(0);
    assert!(read_json(&place.work("r.json"))["signatures"][0]["sig"].is_string());
    let receipt = std::fs::read(place.work("r.json")).unwrap();
    // All bits of an envelope are flipped in the unit tests of `dsse`; here some go through the command line.
    let sampled = (0..receipt.len()).step_by(receipt.len() / 60).chain(receipt.len() - 140..receipt.len());
    for at in sampled {
        let mut changed = receipt.clone();
        changed[at] ^= 1;
        std::fs::write(place.work("changed.json"), changed).unwrap();
        let args = ["advanced", "attest", "verify", "--key", "bob.pub", "changed.json"];
        assert_ne!(place.run(&args).code, 0, "byte {at}");
    }
}
