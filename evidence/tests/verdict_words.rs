//! The words of a verdict: they name the cause that the user can fix, and agree with the exit code.
#![cfg(feature = "verify")]
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{compare_as_json, context, synthetic, write_bundle};
use invarlock_evidence::manifest::FILE_NAME;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::verify::{
    Reason, RuntimeProvenance, Verdict, VerifyOptions, envelope, exit_code, runtime_verify, verify_report,
};
use serde_json::{Value, json};

fn report(windows: usize, shift: f64, profile: Profile, tier: Tier) -> Value {
    let context = context(profile, tier);
    compare_as_json(&synthetic(windows, 0.0), &synthetic(windows, shift), &context).unwrap()
}

fn verify(report: &Value, options: &VerifyOptions) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    verify_report(&write_bundle(folder.path(), report), options)
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
    assert_eq!(verdict.errors[0], "made with profile dev; use --profile dev, or measure with ci");
    assert_eq!((verdict.reason, verdict.exit_code()), (Reason::PolicyFail, 1), "{:?}", verdict.errors);
    assert!(verify(&dev, &of_profile(Profile::Dev)).ok());

    // No evaluator of this version can measure with release.
    let ci = report(180, 0.01, Profile::Ci, Tier::Balanced);
    let verdict = verify(&ci, &of_profile(Profile::Release));
    assert_eq!(verdict.errors[0], "made with profile ci; use --profile ci");
    // A stricter profile than the required one is no reason for a failure.
    let failed = report(180, 0.5, Profile::Ci, Tier::Balanced);
    assert!(
        !verify(&failed, &of_profile(Profile::Dev)).all_errors().any(|error| error.contains("made with"))
    );
}

#[test]
fn altered_report_of_a_weaker_profile_is_an_integrity_failure() {
    let mut dev = report(3, 0.01, Profile::Dev, Tier::Balanced);
    dev["primary_metric"]["ratio_vs_baseline"] = json!(1.0);
    let verdict = verify(&dev, &of_profile(Profile::Ci));
    assert_eq!((verdict.reason, verdict.exit_code()), (Reason::Integrity, 3), "{:?}", verdict.errors);
    assert!(!verdict.all_errors().any(|error| error.contains("made with")), "{:?}", verdict.errors);
}

#[test]
fn unmet_tier_exits_1() {
    for (made, required, shift) in [
        (Tier::Balanced, Tier::Conservative, 0.01),
        (Tier::Balanced, Tier::Conservative, 0.08),
        (Tier::Aggressive, Tier::Balanced, 0.15),
        (Tier::Conservative, Tier::Aggressive, 0.01),
    ] {
        let verdict = verify(&report(220, shift, Profile::Ci, made), &of_tier(required));
        let errors: Vec<&str> = verdict.all_errors().collect();
        assert_eq!((verdict.reason, verdict.exit_code()), (Reason::PolicyFail, 1), "{errors:?}");
        let told = format!("auto.tier is {made}, the verifier requires {required}");
        assert!(errors.contains(&told.as_str()), "{errors:?}");
    }
    let report = report(220, 0.08, Profile::Ci, Tier::Balanced);
    assert!(verify(&report, &of_tier(Tier::Balanced)).ok());
    let verdict = verify(&report, &of_tier(Tier::Conservative));
    assert!(verdict.gate_failures[0].contains("the limit of the conservative tier"), "{verdict:?}");
}

#[test]
fn tier_that_contradicts_the_numbers_exits_3() {
    let mut report = report(220, 0.01, Profile::Ci, Tier::Balanced);
    report["auto"]["tier"] = json!("conservative");
    for tier in [Tier::Conservative, Tier::Balanced] {
        let verdict = verify(&report, &of_tier(tier));
        assert_eq!((verdict.reason, verdict.exit_code()), (Reason::Integrity, 3), "{:?}", verdict.errors);
    }
}

#[test]
fn labels_agree_with_exit_codes() {
    let labels = |verdict: Verdict| {
        let json = envelope(std::slice::from_ref(&verdict), "");
        let [summary, row] = [&json["summary"]["reason"], &json["results"][0]["reason"]].map(Value::clone);
        assert_eq!(summary, row);
        (row.as_str().unwrap_or_default().to_owned(), exit_code(&[verdict]))
    };
    let good = report(220, 0.01, Profile::Ci, Tier::Balanced);
    let gated = report(220, 0.5, Profile::Ci, Tier::Balanced);
    let mut altered = good.clone();
    altered["primary_metric"]["final"] = json!(3.0);
    let mut without = good.clone();
    without["provenance"]["provider_digest"] = json!({});
    let ci = VerifyOptions::default();
    assert_eq!(labels(verify(&good, &ci)), ("ok".to_owned(), 0));
    assert_eq!(labels(verify(&gated, &ci)), ("policy_fail".to_owned(), 1));
    assert_eq!(
        labels(verify(&json!({"validation": {}}), &of_profile(Profile::Dev))),
        ("malformed".to_owned(), 2)
    );
    assert_eq!(labels(verify(&altered, &ci)), ("integrity".to_owned(), 3));
    assert_eq!(labels(verify(&without, &ci)), ("integrity".to_owned(), 3));
    assert_eq!(labels(verify(&altered, &of_profile(Profile::Dev))), ("policy_fail".to_owned(), 1));
    // Upstream has one label for both.
    let parity = VerifyOptions { upstream_parity: true, ..ci };
    assert_eq!(labels(verify(&altered, &parity)), ("policy_fail".to_owned(), 3));
}

#[test]
fn host_execution_is_in_every_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_bundle(folder.path(), &report(180, 0.01, Profile::Ci, Tier::Balanced));
    let manifest = folder.path().join(FILE_NAME);
    let both = || {
        let host = VerifyOptions { runtime_provenance: RuntimeProvenance::Host, ..VerifyOptions::default() };
        let verdicts = [verify_report(&path, &VerifyOptions::default()), verify_report(&path, &host)];
        let rows = envelope(&verdicts, "")["results"].as_array().cloned().unwrap();
        let mut found: Vec<Value> = rows.iter().map(|row| row["host_execution"].clone()).collect();
        found.push(runtime_verify(&path, &manifest, None).to_json()["host_execution"].clone());
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
