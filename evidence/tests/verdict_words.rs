//! The words of a verdict: they name the cause that the user can fix, and agree with the exit code.
#![cfg(feature = "verify")]
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::Made;
use invarlock_evidence::compare::to_bytes;
use invarlock_evidence::format::to_value;
use invarlock_evidence::manifest::{self, FILE_NAME};
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::verify::{
    ProvenanceStatus, Reason, RuntimeProvenance, Verdict, VerifyOptions, envelope, exit_code, runtime_verify,
    verify_report,
};
use serde_json::{Value, json};

fn report(windows: usize, shift: f64, profile: Profile, tier: Tier) -> Made {
    Made::new(windows, shift, profile, tier)
}

fn verify(made: &Made, options: &VerifyOptions) -> Verdict {
    verify_altered(made, options, |_| {})
}

/// Verifies evidence whose report was altered afterwards. The manifest contains the digest of the altered report.
fn verify_altered(made: &Made, options: &VerifyOptions, alter: impl FnOnce(&mut Value)) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    let path = made.write(folder.path());
    let mut report = to_value(&made.report());
    alter(&mut report);
    let bytes = to_bytes(&report);
    let manifest = manifest::to_bytes(&made.facts.manifest(&sha256_hex(&bytes)));
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(folder.path().join(FILE_NAME), manifest).unwrap();
    verify_report(&path, options)
}

fn of_profile(profile: Profile) -> VerifyOptions {
    VerifyOptions { profile, ..VerifyOptions::default() }
}

fn of_tier(tier: Tier) -> VerifyOptions {
    VerifyOptions { tier: Some(tier), ..VerifyOptions::default() }
}

#[test]
fn weaker_profile_is_the_first_error_and_exits_1() {
    let dev = report(3, 0.01, Profile::Dev, Tier::Balanced);
    let verdict = verify(&dev, &of_profile(Profile::Ci));
    assert_eq!(verdict.gate_failures[0], "made with profile dev; use --profile dev, or measure with ci");
    assert_eq!((verdict.reason, verdict.exit_code()), (Reason::PolicyFail, 1), "{:?}", verdict.errors);
    assert!(verify(&dev, &of_profile(Profile::Dev)).ok());
    // The gates of ci_cpu are those of dev, so another profile is no remedy.
    let failed = verify(&report(3, 0.5, Profile::Dev, Tier::Balanced), &of_profile(Profile::CiCpu));
    assert!(!failed.ok() && !failed.all_errors().any(|error| error.contains("made with")));

    // The evaluator that measured this evidence measured nothing for the guards.
    let ci = report(180, 0.01, Profile::Ci, Tier::Balanced);
    let verdict = verify(&ci, &of_profile(Profile::Release));
    assert_eq!(verdict.gate_failures[0], "made with profile ci; use --profile ci, or measure with release");
    // A stricter profile than the required one is no reason for a failure.
    let failed = report(180, 0.5, Profile::Ci, Tier::Balanced);
    assert!(
        !verify(&failed, &of_profile(Profile::Dev)).all_errors().any(|error| error.contains("made with"))
    );
}

#[test]
fn altered_report_of_a_weaker_profile_is_an_integrity_failure() {
    let dev = report(3, 0.01, Profile::Dev, Tier::Balanced);
    let verdict = verify_altered(&dev, &of_profile(Profile::Ci), |report| {
        report["primary_metric"]["ratio_vs_baseline"] = json!(1.0);
    });
    assert_eq!((verdict.reason, verdict.exit_code()), (Reason::Integrity, 3), "{:?}", verdict.errors);
    assert_eq!(verdict.provenance.status, ProvenanceStatus::Failed);
    let named = |error: &String| {
        error.starts_with("evaluation.report.primary_metric.ratio_vs_baseline is 1.0, expected 1.01")
    };
    assert!(verdict.errors.iter().any(named), "{:?}", verdict.errors);
}

#[test]
fn unmet_tier_exits_1() {
    for (made, required, shift, met) in [
        (Tier::Balanced, Tier::Conservative, 0.01, true),
        (Tier::Balanced, Tier::Conservative, 0.08, false),
        (Tier::Aggressive, Tier::Balanced, 0.15, false),
        (Tier::Conservative, Tier::Aggressive, 0.01, true),
    ] {
        let verdict = verify(&report(220, shift, Profile::Ci, made), &of_tier(required));
        assert!(verdict.errors.is_empty(), "{:?}", verdict.errors);
        if met {
            assert_eq!((verdict.reason, verdict.exit_code()), (Reason::Ok, 0), "{:?}", verdict.gate_failures);
            continue;
        }
        assert_eq!((verdict.reason, verdict.exit_code()), (Reason::PolicyFail, 1));
        let first = format!("made with tier {made}; not met under {required}");
        assert_eq!(verdict.gate_failures[0], first);
    }
}

#[test]
fn tier_that_contradicts_the_numbers_exits_3() {
    let made = report(220, 0.01, Profile::Ci, Tier::Balanced);
    for tier in [Tier::Conservative, Tier::Balanced] {
        let verdict =
            verify_altered(&made, &of_tier(tier), |report| report["auto"]["tier"] = json!("conservative"));
        assert_eq!((verdict.reason, verdict.exit_code()), (Reason::Integrity, 3), "{:?}", verdict.errors);
    }
}

#[test]
fn labels_agree_with_exit_codes() {
    let labels = |verdict: Verdict| {
        let json = json!(envelope(std::slice::from_ref(&verdict), ""));
        let [summary, row] = [&json["summary"]["reason"], &json["results"][0]["reason"]].map(Value::clone);
        assert_eq!(summary, row);
        (row.as_str().unwrap_or_default().to_owned(), exit_code(&[verdict]))
    };
    let good = report(220, 0.01, Profile::Ci, Tier::Balanced);
    let gated = report(220, 0.5, Profile::Ci, Tier::Balanced);
    let altered = |options: &VerifyOptions| {
        verify_altered(&good, options, |report| report["primary_metric"]["final"] = json!(3.0))
    };
    let ci = VerifyOptions::default();
    assert_eq!(labels(verify(&good, &ci)), ("ok".to_owned(), 0));
    assert_eq!(labels(verify(&gated, &ci)), ("policy_fail".to_owned(), 1));
    let other =
        verify_altered(&good, &of_profile(Profile::Dev), |report| *report = json!({"validation": {}}));
    assert_eq!(labels(other), ("malformed".to_owned(), 2));
    assert_eq!(labels(altered(&ci)), ("integrity".to_owned(), 3));
    assert_eq!(labels(altered(&of_profile(Profile::Dev))), ("policy_fail".to_owned(), 1));
    // Upstream has one label for both.
    let parity = VerifyOptions { upstream_parity: true, ..ci };
    assert_eq!(labels(altered(&parity)), ("policy_fail".to_owned(), 3));
}

#[test]
fn a_manifest_that_is_not_one_is_malformed() {
    let folder = tempfile::tempdir().unwrap();
    let path = report(3, 0.01, Profile::Dev, Tier::Balanced).write(folder.path());
    for manifest in ["{", "[1]", "{\"context\": {\"plan\": 1}}"] {
        std::fs::write(folder.path().join(FILE_NAME), manifest).unwrap();
        let verdict = verify_report(&path, &of_profile(Profile::Dev));
        assert_eq!((verdict.reason, verdict.exit_code()), (Reason::Malformed, 2), "{:?}", verdict.errors);
        assert!(
            verdict.errors[0].contains(FILE_NAME) || verdict.errors[0].contains("manifest"),
            "{:?}",
            verdict.errors
        );
    }
}

#[test]
fn host_execution_is_in_every_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let path = report(180, 0.01, Profile::Ci, Tier::Balanced).write(folder.path());
    let manifest = folder.path().join(FILE_NAME);
    let both = || {
        let host = VerifyOptions { runtime_provenance: RuntimeProvenance::Host, ..VerifyOptions::default() };
        let verdicts = [verify_report(&path, &VerifyOptions::default()), verify_report(&path, &host)];
        let rows = json!(envelope(&verdicts, ""))["results"].as_array().cloned().unwrap();
        let mut found: Vec<Value> = rows.iter().map(|row| row["host_execution"].clone()).collect();
        found.push(json!(runtime_verify(&path, &manifest, None).output())["host_execution"].clone());
        found
    };
    assert_eq!(both(), [Value::Null, Value::Null, Value::Null]);

    let mut host: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    host["execution_mode"] = json!("host-bypass");
    host["context"]["allowances"]["granted_by"] = json!({"allow_host_execution": "--execution-mode"});
    std::fs::write(&manifest, host.to_string()).unwrap();
    let sentence =
        json!("HOST EXECUTION: this run was not isolated in a container (allowed by --execution-mode)");
    assert_eq!(both(), [sentence.clone(), sentence.clone(), sentence]);
}
