//! `evaluate --tiers`: other limits than those of the tier are recorded, and accepted by a verifier who has them.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{Place, read_json, small};
use serde_json::{Value, json};

/// Evaluates with the limits of this file.
fn evaluate(place: &Place, limits: &Value, code: i32) -> Value {
    place.write("tiers.yaml", limits.to_string().as_bytes());
    small::evaluate(place, &["--tiers", "tiers.yaml", "--json"]).expect(code).json()
}

/// Limits of the comparison for the tier balanced.
fn limits(norm_ratio_max: f64, epsilon: f64) -> Value {
    json!({"balanced": {
        "spectral_guard": {"max_caps": 5, "compare": {"norm_ratio_max": norm_ratio_max}},
        "rmt_guard": {"compare": {"epsilon": epsilon}},
    }})
}

#[test]
fn limits_are_bound_and_a_verifier_must_have_them() {
    let place = small::place();
    evaluate(&place, &limits(1.001, 1e-6), 0);
    let report = read_json(&place.work("eval/evaluation.report.json"));
    assert_eq!(report["resolved_policy"]["spectral"]["norm_ratio_max"], 1.001);
    assert_eq!(report["resolved_policy"]["rmt"]["epsilon_default"], 1e-6);
    // The subject is further from its baseline than these limits allow; the profile dev shows that and does not decide on it.
    assert_eq!(report["rmt"]["stable"], false, "{:#}", report["rmt"]);
    assert!(report["spectral"]["caps_applied"].as_u64().unwrap() > 0, "{:#}", report["spectral"]);
    let verify = |more: &[&str], code| {
        place.run(&[&["verify", "--profile", "dev"][..], more, &["eval"]].concat()).expect(code).out
    };
    let refused = verify(&[], 1);
    assert!(refused.contains("limits of a tiers file") && refused.contains("--tiers FILE"), "{refused}");
    let accepted = verify(&["--tiers", "tiers.yaml"], 0);
    assert!(
        accepted.contains("matched: tiers file") && accepted.contains("limits of a tiers file"),
        "{accepted}"
    );

    // A file with other limits is another file, and so is evidence that names this file and has other limits.
    place.write("other.yaml", limits(9.0, 9.0).to_string().as_bytes());
    verify(&["--tiers", "other.yaml"], 1);
    // The verifier's limits are required of evidence that has none.
    let plain = small::place();
    small::evaluate(&plain, &[]).expect(0);
    plain.write("tiers.yaml", limits(1.001, 1e-6).to_string().as_bytes());
    let ran = plain.run(&["verify", "--profile", "dev", "--tiers", "tiers.yaml", "eval"]).expect(1);
    assert!(ran.out.contains("not with those of --tiers"), "{}", ran.out);
}

#[test]
fn a_trust_profile_contains_the_limits() {
    let place = small::place();
    evaluate(&place, &limits(1.5, 0.5), 0);
    let manifest = read_json(&place.work("eval/runtime.manifest.json"));
    let tiers = &manifest["context"]["plan"]["content"]["tiers"];
    let mut trust = json!({"format_version": "invarlock-trust-v1", "profile": "dev",
        "tiers": {"sha256": tiers["sha256"], "limits": {"balanced": tiers["limits"]}}});
    place.write("trust.json", trust.to_string().as_bytes());
    place.run(&["verify", "--trust", "trust.json", "eval"]).expect(0);
    // The digest alone would not bind the limits.
    trust["tiers"]["limits"]["balanced"]["epsilon"] = json!(0.4);
    place.write("trust.json", trust.to_string().as_bytes());
    place.run(&["verify", "--trust", "trust.json", "eval"]).expect(1);
}

#[test]
fn faults_are_found_before_anything_runs() {
    let place = small::place();
    let refused = |limits: Value, needle: &str| {
        let output = evaluate(&place, &limits, 2);
        let text = output["error"].to_string();
        assert!(text.contains(needle), "{text}");
        assert!(!place.work("eval").exists());
    };
    refused(
        json!({"conservative": limits(1.1, 0.1)["balanced"]}),
        "no limit of the comparison with the baseline for tier balanced",
    );
    refused(json!({"balance": {}}), "did you mean balanced?");
    refused(limits(0.5, 0.1), "norm_ratio_max is 0.5");
}
