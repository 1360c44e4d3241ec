//! Signed evidence: keys, attestations and plan locks, checked by this program and by another implementation.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::small::{self, evaluate};
use invarlock_tests::{Place, Ran, read_json, set_mode, skip, target};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

/// Two demo checkpoints, a preset of few windows, and the keys `alice` and `bob`, `bob` as ssh-keygen writes it.
fn place() -> Place {
    let place = small::place();
    place.run(&["advanced", "attest", "keygen", "alice.key"]).expect(0);
    // It refuses a user id without an account.
    let keygen = ["-q", "-t", "ed25519", "-N", "", "-f"];
    let bob = Command::new("ssh-keygen").args(keygen).arg(place.work("bob")).status();
    assert!(bob.is_ok_and(|bob| bob.success()), "ssh-keygen of OpenSSH is needed");
    place.give(&place.work("bob"));
    place
}

fn verify(place: &Place, more: &[&str]) -> Ran {
    place.run(&[&["verify", "--profile", "dev"], more, &["eval"]].concat())
}

#[test]
fn a_signature_says_who_made_the_evidence() {
    let place = place();
    evaluate(&place, &["--signing-key", "alice.key"]).expect(0);
    assert!(verify(&place, &[]).expect(0).out.contains("assurance=consistent"));
    let signed = verify(&place, &["--key", "bob.pub", "--key", "alice.pub"]).expect(0);
    assert!(signed.out.contains("assurance=signed"), "{}", signed.out);
    let unsigned = verify(&place, &["--key", "bob.pub"]).expect(1);
    assert!(unsigned.out.contains("no signature of a key that the verifier trusts"), "{}", unsigned.out);

    // A second person signs the same evidence.
    let args = ["advanced", "attest", "sign", "--signing-key", "bob", "eval"];
    place.run(&args).expect(0);
    let row = verify(&place, &["--json", "--key", "bob.pub"]).expect(0).json()["results"][0].clone();
    assert_eq!(row["assurance"], "signed");
    let signers: Vec<&Value> =
        row["about"]["signers"].as_array().unwrap().iter().map(|s| &s["trusted"]).collect();
    assert!(signers.len() == 2 && signers.iter().any(|s| **s == json!(true)), "{row}");

    // Removing the attestation does not help who was told to trust a key.
    std::fs::remove_file(place.work("eval/runtime.attestation.json")).unwrap();
    verify(&place, &["--key", "alice.pub"]).expect(1);
}

#[test]
fn an_attestation_of_other_evidence_is_refused() {
    let place = place();
    evaluate(&place, &["--signing-key", "alice.key"]).expect(0);
    let path = place.work("eval/runtime.attestation.json");
    let earlier = std::fs::read(&path).unwrap();
    // The next evaluation is not signed: the attestation of the earlier one is gone.
    evaluate(&place, &[]).expect(0);
    assert!(!path.exists());
    verify(&place, &[]).expect(0);
    std::fs::write(&path, &earlier).unwrap();
    let swapped = verify(&place, &[]).expect(1);
    assert!(swapped.out.contains("is not about this evidence"), "{}", swapped.out);
    for changed in [0, earlier.len() / 2, earlier.len() - 8, earlier.len() - 1] {
        let mut bytes = earlier.clone();
        bytes[changed] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_ne!(verify(&place, &["--key", "alice.pub"]).code, 0, "byte {changed}");
    }
}

#[test]
fn a_plan_lock_is_kept_and_named() {
    let place = place();
    let lock = ["plan", "lock", "--profile", "dev", "--preset", "preset.yaml", "--baseline", "base"];
    place.run(&[&lock[..], &["--signing-key", "alice.key"]].concat()).expect(0);
    let other = evaluate(&place, &["--lock", "plan.lock.json", "--tier", "aggressive"]).expect(2);
    other.one_error(&["the plan lock fixes the tier balanced", "help: "]);
    assert!(!place.work("eval").exists(), "nothing was measured");

    evaluate(&place, &["--lock", "plan.lock.json"]).expect(0);
    let ran = verify(&place, &["--lock", "plan.lock.json"]).expect(0);
    assert!(ran.out.contains("matched: plan lock") && ran.out.contains("lock      sha256:"), "{}", ran.out);
    // Without the file, or with another, the evidence is not that of the lock.
    let kept = place.work("eval/plan.lock.json");
    std::fs::remove_file(&kept).unwrap();
    assert!(verify(&place, &[]).expect(1).out.contains("plan.lock.json is missing"));
    place.run(&[&lock[..], &["--signing-key", "alice.key", "--output", "second.json"]].concat()).expect(0);
    std::fs::copy(place.work("second.json"), &kept).unwrap();
    assert!(verify(&place, &[]).expect(1).out.contains("plan.lock.json was changed"));
    // An evaluation that had no lock does not meet the demand for one.
    evaluate(&place, &[]).expect(0);
    let ran = verify(&place, &["--lock", "plan.lock.json"]).expect(1);
    assert!(ran.out.contains("the evaluation had no plan lock"), "{}", ran.out);
}

#[test]
fn a_trust_profile_names_keys_and_lock() {
    let place = place();
    let lock = ["plan", "lock", "--profile", "dev", "--preset", "preset.yaml", "--signing-key", "bob"];
    place.run(&lock).expect(0);
    evaluate(&place, &["--lock", "plan.lock.json", "--signing-key", "alice.key"]).expect(0);
    let key = |name: &str| std::fs::read_to_string(place.work(name)).unwrap();
    let digest =
        read_json(&place.work("eval/runtime.manifest.json"))["context"]["plan"]["content"]["request"]["lock"]
            .clone();
    let lock = format!("sha256:{}", digest.as_str().unwrap());
    let mut trust = json!({"format_version": "invarlock-trust-v1", "profile": "dev", "keys": [key("alice.pub"), key("bob.pub")], "lock": lock});
    let verify = |trust: &Value| {
        place.write("trust.json", trust.to_string().as_bytes());
        place.run(&["verify", "--trust", "trust.json", "eval"])
    };
    let ran = verify(&trust).expect(0);
    assert!(ran.out.contains("assurance=signed"), "{}", ran.out);
    // Both keys are known: the lock's signer is trusted, too.
    assert!(!ran.out.contains("not trusted"), "{}", ran.out);
    trust["keys"] = json!([key("bob.pub")]);
    verify(&trust).expect(1);
    trust["keys"] = json!(["no key"]);
    verify(&trust).expect(2).one_error(&["trust.json", "keys", "not an Ed25519 public key"]);
}

#[test]
fn key_files_are_checked_before_anything_runs() {
    let place = place();
    let keygen = place.run(&["advanced", "attest", "keygen", "alice.key", "--public-key-out", "new.pub"]);
    keygen.expect(2).one_error(&["alice.key", "never replaced"]);
    set_mode(&place.work("alice.key"), 0o640);
    evaluate(&place, &["--signing-key", "alice.key"]).expect(2).one_error(&[
        "alice.key",
        "other users can open it (mode 0640)",
        "chmod 600",
    ]);
    evaluate(&place, &["--signing-key", "missing"]).expect(2).one_error(&[
        "missing",
        "No such file",
        "check the path",
    ]);
    evaluate(&place, &["--signing-key", "preset.yaml"]).expect(2);
    assert!(!place.work("runs").exists(), "nothing was measured");
}

/// The key reaches no file, no output and no container.
#[test]
fn the_private_key_stays_in_its_file() {
    let place = place();
    let text = std::fs::read_to_string(place.work("alice.key")).unwrap();
    let body = text.lines().nth(1).unwrap().to_owned();
    let ran = evaluate(&place, &["--signing-key", "alice.key", "--verbose", "--out", "runs"]);
    assert!(!ran.out.contains(&body) && !ran.err.contains(&body));
    let mut pending = vec![place.dir.path().to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                pending.push(path);
            } else if path.is_file() && !path.ends_with("alice.key") {
                let bytes = std::fs::read(&path).unwrap();
                let found = bytes.windows(body.len()).any(|window| window == body.as_bytes());
                assert!(!found, "{}", path.display());
            }
        }
    }
}

fn second_implementation() -> Option<PathBuf> {
    Some(target().join("upstream/dsse/bin/python")).filter(|path| path.is_file())
}

/// securesystemslib verifies the envelope, in-toto-attestation the statement.
#[test]
fn another_implementation_verifies_the_attestation() {
    let Some(python) = second_implementation() else {
        return skip(
            "signatures::another_implementation",
            "securesystemslib is not installed (Python 3.12 or newer needed)",
        );
    };
    let script = r#"
import json, sys
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf import json_format
from in_toto_attestation.v1 import statement, statement_pb2
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
envelope = Envelope.from_dict(json.load(open(sys.argv[1])))
pem = load_pem_public_key(open(sys.argv[2], "rb").read())
[accepted] = envelope.verify([SSlibKey.from_crypto(pem, keyid=sys.argv[3])], 1)
read = json_format.Parse(envelope.payload, statement_pb2.Statement())
statement.Statement.copy_from_pb(read).validate()
print(accepted, read.predicate_type)
"#;
    let place = place();
    evaluate(&place, &["--signing-key", "alice.key"]).expect(0);
    let path = place.work("eval/runtime.attestation.json");
    let args = ["advanced", "attest", "inspect", "eval/runtime.attestation.json"];
    let fingerprint = place.run(&args).expect(0).json()["key_ids"][0].as_str().unwrap().to_owned();
    let check = || {
        let mut command = Command::new(&python);
        command.args(["-c", script]).args([&path, &place.work("alice.pub")]).arg(&fingerprint);
        Ran::from(command.env_clear().output().unwrap())
    };
    let ran = check().expect(0);
    assert!(ran.out.contains("https://invarlock.dev/attestations/evaluation-result/v1"), "{}", ran.out);
    let mut envelope = read_json(&path);
    envelope["payload"] = json!(envelope["payload"].as_str().unwrap().replacen("ey", "e3", 1));
    std::fs::write(&path, envelope.to_string()).unwrap();
    assert_ne!(check().code, 0, "the changed payload");
}
