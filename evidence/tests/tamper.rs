//! A report that was changed after the comparison does not verify, even with a new manifest for it.
#![cfg(feature = "verify")]
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{compare_as_json as compare, context, reseal, synthetic, write_bundle};
use invarlock_evidence::compare::to_bytes;
use invarlock_evidence::manifest::FILE_NAME;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::verify::{
    Trust, VerifyOptions, envelope, exit_code, runtime_verify, success_line, to_line, verify_report,
};
use invarlock_evidence::{gates, json};
use proptest::prelude::*;
use serde_json::{Value, json};

fn report(shift: f64) -> Value {
    compare(&synthetic(180, 0.0), &synthetic(180, shift), &context(Profile::Ci, Tier::Balanced)).unwrap()
}

fn verify(report: &Value, profile: Profile) -> invarlock_evidence::verify::Verdict {
    let folder = tempfile::tempdir().unwrap();
    let path = write_bundle(folder.path(), report);
    verify_report(&path, &VerifyOptions { profile, ..VerifyOptions::default() })
}

#[test]
fn accepts_healthy_and_rejects_damaged_subject() {
    let healthy = report(0.01);
    let verdict = verify(&healthy, Profile::Ci);
    assert!(verdict.ok(), "{:?}", verdict.errors);
    assert_eq!((verdict.trust, verdict.exit_code()), (Trust::ManifestBound, 0));
    assert!(gates::passed(&healthy) && gates::verdict_line(&healthy).starts_with("PASS ratio=1.01"));

    let damaged = report(0.3);
    let verdict = verify(&damaged, Profile::Ci);
    assert_eq!((verdict.ok(), verdict.exit_code()), (false, 1), "{:?}", verdict.errors);
    assert!(verdict.errors.is_empty() && verdict.gate_failures.len() >= 2, "{verdict:?}");
    assert_eq!(verdict.all_errors().count(), verdict.gate_failures.len());
    let lenient = verify(&damaged, Profile::Dev);
    assert_eq!((lenient.exit_code(), lenient.errors.len()), (1, 0), "{:?}", lenient.errors);
    assert!(!gates::passed(&damaged) && gates::verdict_line(&damaged).starts_with("FAIL"));
    // The release profile requires guards that this version does not implement.
    assert_eq!(verify(&healthy, Profile::Release).exit_code(), 1);
}

#[test]
fn dev_verdict_agrees_in_report_and_verifier() {
    let dev = context(Profile::Dev, Tier::Balanced);
    let mut run = synthetic(4, 0.01);
    // The final arm is far above the preview. The drift does not decide the dev verdict.
    let mut base = synthetic(4, 0.0);
    for report in [&mut run, &mut base] {
        report.evaluation_windows.final_.logloss.iter_mut().for_each(|loss| *loss += 1.0);
    }
    let report = compare(&base, &run, &dev).unwrap();
    assert_eq!(report["validation"], json!({"invariants_pass": true, "primary_metric_acceptable": true}));
    assert_eq!((gates::passed(&report), &report["assurance"]["verdict"]), (true, &json!("pass")));
    let verdict = verify(&report, Profile::Dev);
    assert!(verdict.ok(), "{:?}", verdict.errors);
    assert!(success_line(&verdict).contains(" tier=balanced "));
    let drift = gates::gates(&report).into_iter().find(|gate| gate.name.contains("Drift")).unwrap();
    assert!(drift.passed.is_none() && drift.detail.contains("does not decide"));

    let report = compare(&base, &synthetic(4, 1.5), &dev).unwrap();
    assert_eq!((gates::passed(&report), &report["assurance"]["verdict"]), (false, &json!("fail")));
    let verdict = verify(&report, Profile::Dev);
    assert!(!verdict.ok() && verdict.errors.is_empty(), "{:?}", verdict.errors);
}

#[test]
fn detects_every_changed_value() {
    let original = report(0.01);
    let mut paths = vec![
        "/evaluation_windows/final/logloss/3",
        "/evaluation_windows/preview/logloss/0",
        "/evaluation_windows/final/token_counts/0",
        "/evaluation_windows/final/actual_token_counts/0",
        "/evaluation_windows/preview/input_ids/5/7",
        "/evaluation_windows/final/attention_masks/0/159",
        "/evaluation_windows/final/window_ids/0",
        "/baseline_windows/final/logloss/3",
        "/baseline_windows/preview/logloss/3",
        "/baseline_windows/final/token_counts/1",
        "/baseline_windows/final/window_ids/1",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect::<Vec<_>>();
    let blocks = [
        "primary_metric",
        "primary_metric_tail",
        "validation",
        "confidence",
        "dataset/hash",
        "dataset/windows",
        "baseline_ref/primary_metric",
        "resolved_policy/metrics",
        "auto",
        "policy_digest/thresholds_hash",
        "policy_provenance/policy_digest",
        "policy_provenance/tier",
        "invariants/status",
        "invariants/passed",
        "invariants/details",
        "quality_overhead/value",
        "telemetry/preview_total_tokens",
        "telemetry/final_total_tokens",
        "provenance/provider_digest",
        "provenance/window_plan_digest",
        "context/profile",
        "baseline_ref/tokenizer_hash",
        "meta/tokenizer_hash",
        "meta/profile",
    ];
    fn leaves(path: String, value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(name, member)| leaves(format!("{path}/{name}"), member, out));
            }
            Value::Array(members) => {
                members.iter().enumerate().for_each(|(i, member)| leaves(format!("{path}/{i}"), member, out));
            }
            Value::Null => {}
            _ => out.push(path),
        }
    }
    for block in blocks {
        let path = format!("/{block}");
        leaves(path.clone(), original.pointer(&path).unwrap_or_else(|| panic!("{path}")), &mut paths);
    }
    // Requested settings that no decision and no number depends on.
    const UNCHECKED: [&str; 5] = [
        "/auto/probes_used",
        "/dataset/windows/seed",
        "/dataset/windows/stats/requested_preview",
        "/dataset/windows/stats/requested_final",
        "/dataset/windows/stats/coverage_ok",
    ];
    let mut accepted = Vec::new();
    for path in paths.iter().filter(|path| !UNCHECKED.contains(&path.as_str())) {
        let mut changed = original.clone();
        let leaf = changed.pointer_mut(path).unwrap_or_else(|| panic!("{path}"));
        *leaf = match &*leaf {
            Value::Bool(flag) => json!(!flag),
            Value::Number(number) if number.is_u64() => json!(number.as_u64().unwrap() ^ 1),
            Value::Number(number) => json!(number.as_f64().unwrap() * 1.0001 + 1e-6),
            Value::String(text) => json!(format!("{}0", &text[..text.len() - 1]).replace("pas0", "fail")),
            other => other.clone(),
        };
        if changed.pointer(path) == original.pointer(path) {
            *changed.pointer_mut(path).unwrap() = json!("zz");
        }
        if verify(&changed, Profile::Ci).ok() {
            accepted.push(path.clone());
        }
    }
    assert!(paths.len() > 120, "{}", paths.len());
    assert!(accepted.is_empty(), "accepted: {accepted:#?}");
}

#[test]
fn detects_removed_blocks() {
    let original = report(0.01);
    for name in [
        "schema_version",
        "run_id",
        "meta",
        "auto",
        "dataset",
        "invariants",
        "primary_metric",
        "primary_metric_tail",
        "validation",
        "confidence",
        "baseline_ref",
        "provenance",
        "resolved_policy",
        "policy_digest",
        "telemetry",
        "evaluation_windows",
        "baseline_windows",
        "context",
        "plugins",
        "artifacts",
    ] {
        let mut changed = original.clone();
        changed.as_object_mut().unwrap().remove(name);
        assert!(!verify(&changed, Profile::Ci).ok(), "{name}");
    }
}

#[test]
fn changed_byte_breaks_the_manifest_binding() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_bundle(folder.path(), &report(0.01));
    let manifest = folder.path().join(FILE_NAME);
    let bytes = std::fs::read(&path).unwrap();
    for offset in (0..bytes.len()).step_by(bytes.len() / 40) {
        let mut changed = bytes.clone();
        changed[offset] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        assert!(!runtime_verify(&path, &manifest, None).ok(), "byte {offset}");
        assert!(
            !verify_report(&path, &VerifyOptions { profile: Profile::Dev, ..VerifyOptions::default() }).ok()
        );
    }
}

#[test]
fn rejects_manifest_with_disabled_control_or_other_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_bundle(folder.path(), &report(0.01));
    let manifest_path = folder.path().join(FILE_NAME);
    let text = std::fs::read_to_string(&manifest_path).unwrap();
    assert!(
        text.starts_with("{\n  \"config\": {\n    \"path\": null,")
            && text.ends_with("}\n")
            && text.is_ascii()
    );
    let original: Value = serde_json::from_str(&text).unwrap();
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 9] = [
        ("allow_network", |m| m["runtime"]["allow_network"] = json!(true)),
        ("allow_remote_code", |m| m["runtime"]["allow_remote_code"] = json!(true)),
        ("allow_third_party_plugins", |m| m["runtime"]["allow_third_party_plugins"] = json!(true)),
        ("loosened", |m| m["context"]["loosened"] = json!(["--allow-network"])),
        ("filename", |m| m["report"]["filename"] = json!("other.json")),
        ("image_ref", |m| m["runtime"]["image_ref"] = json!(format!("x@sha256:{}", "00".repeat(32)))),
        ("host-bypass", |m| m["execution_mode"] = json!("host-bypass")),
        ("container_execution", |m| m["runtime"]["container_execution"] = json!(false)),
        ("schema", |m| m["extra"] = json!(1)),
    ];
    for (word, change) in changes {
        let mut changed = original.clone();
        change(&mut changed);
        std::fs::write(&manifest_path, changed.to_string()).unwrap();
        let verdict = verify_report(&path, &VerifyOptions::default());
        let is_named = verdict.errors.iter().any(|error| error.contains(word));
        assert!(!verdict.ok() && is_named, "{word}: {:?}", verdict.errors);
        assert!(!runtime_verify(&path, &manifest_path, None).ok(), "{word}");
    }
    std::fs::write(
        &manifest_path,
        text.replacen("\"manifest_version\": 1", "\"manifest_version\": 1, \"manifest_version\": 1", 1),
    )
    .unwrap();
    assert!(runtime_verify(&path, &manifest_path, None).errors[0].contains("is a duplicate"));

    std::fs::write(&manifest_path, &text).unwrap();
    let digest = format!("sha256:{}", "ab".repeat(32));
    assert_eq!(
        runtime_verify(&path, &manifest_path, Some(&digest.to_uppercase().replace("SHA", "sha"))).trust,
        Trust::ExpectedImageDigestMatched
    );
    for wrong in [format!("sha256:{}", "00".repeat(32)), "latest".to_owned()] {
        assert!(!runtime_verify(&path, &manifest_path, Some(&wrong)).ok());
        let options = VerifyOptions { expected_image_digest: Some(wrong), ..VerifyOptions::default() };
        assert!(!verify_report(&path, &options).ok());
    }
}

#[test]
fn rejects_manifest_context_that_contradicts_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_bundle(folder.path(), &report(0.01));
    let manifest_path = folder.path().join(FILE_NAME);
    let original: Value = serde_json::from_slice(&std::fs::read(&manifest_path).unwrap()).unwrap();
    let other = json!("00".repeat(32));
    let mut cases: Vec<(String, Value)> = vec![
        ("/context/plan/content/tier".to_owned(), json!("aggressive")),
        ("/context/plan/content/profile".to_owned(), json!("dev")),
        ("/context/plan/content/image/manifest_digest".to_owned(), json!("sha256:00")),
        ("/context/plan/content".to_owned(), json!(null)),
        ("/context/allowances/network".to_owned(), json!(true)),
        ("/context/allowances/host_execution".to_owned(), json!(true)),
        ("/context/allowances/granted_by".to_owned(), json!({"allow_network": "--allow-network"})),
        ("/context/loosened".to_owned(), json!(null)),
        ("/context/sides/subject/reused".to_owned(), json!(true)),
        ("/context/sides/baseline/reused".to_owned(), json!(true)),
        ("/context/plan/content/sides/subject/checkpoint/tree_sha256".to_owned(), other.clone()),
        ("/context/plan/content/sides/baseline/seccomp/digest".to_owned(), json!("sha256:00")),
    ];
    for side in ["baseline", "subject"] {
        let base = format!("/context/sides/{side}");
        let mut case = |path: &str, value: Value| cases.push((format!("{base}{path}"), value));
        case("", json!(null));
        case("/outputs/1/sha256", other.clone());
        case("/outputs/1/name", json!("events.jsonl"));
        case("/outputs", json!([]));
        case("/checkpoint/tree_sha256", other.clone());
        case("/filter_digest", json!("sha256:00"));
        case("/observations", json!(null));
    }
    for (pointer, value) in cases {
        let mut changed = original.clone();
        *changed.pointer_mut(&pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        reseal(&mut changed["context"]);
        std::fs::write(&manifest_path, changed.to_string()).unwrap();
        let verdict = verify_report(&path, &VerifyOptions::default());
        let is_named = verdict
            .errors
            .iter()
            .any(|error| error.starts_with("context.") || error.contains("context.sides"));
        assert!(
            !verdict.ok() && is_named && verdict.gate_failures.is_empty(),
            "{pointer}: {:?}",
            verdict.errors
        );
        assert_eq!(verdict.trust, Trust::Failed);
    }
    // A plan that does not match its digest is rejected.
    let mut changed = original.clone();
    changed["context"]["plan"]["content"]["more"] = json!(1);
    std::fs::write(&manifest_path, changed.to_string()).unwrap();
    assert!(verify_report(&path, &VerifyOptions::default()).errors[0].contains("context.plan.digest"));
    // A manifest with a complete record of a reused baseline is accepted.
    let mut reused = original;
    let side = &mut reused["context"]["sides"]["baseline"];
    side["reused"] = json!(true);
    side["report_sha256"] = json!("cc".repeat(32));
    side["outputs"] = json!(null);
    std::fs::write(&manifest_path, reused.to_string()).unwrap();
    let verdict = verify_report(&path, &VerifyOptions::default());
    assert!(verdict.ok() && verdict.trust == Trust::ManifestBound, "{:?}", verdict.errors);
}

#[test]
fn accepts_only_granted_allowances() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_bundle(folder.path(), &report(0.01));
    let manifest_path = folder.path().join(FILE_NAME);
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&manifest_path).unwrap()).unwrap();
    let allowances =
        json!({"network": true, "host_execution": false, "granted_by": {"allow_network": "flag"}});
    manifest["runtime"]["allow_network"] = json!(true);
    let context = &mut manifest["context"];
    context["loosened"] = json!(["allow_network"]);
    context["allowances"] = allowances.clone();
    context["plan"]["content"]["allowances"] = allowances;
    reseal(context);
    std::fs::write(&manifest_path, manifest.to_string()).unwrap();
    let verify_with = |granted: &[&str]| {
        let granted = granted.iter().map(|name| (*name).to_owned()).collect();
        verify_report(&path, &VerifyOptions { granted, ..VerifyOptions::default() })
    };
    let verdict = verify_with(&["allow_network"]);
    assert!(verdict.ok(), "{:?}", verdict.errors);
    assert!(!verify_with(&[]).ok() && !verify_with(&["allow_remote_code"]).ok());
}

#[test]
fn input_that_is_not_a_report_is_malformed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evaluation.report.json");
    for bytes in [&b"{"[..], b"\xff\xfe", b"[]", b"1", b"", b"{\"a\": 1, \"a\": 2}"] {
        std::fs::write(&path, bytes).unwrap();
        let verdict = verify_report(&path, &VerifyOptions::default());
        assert_eq!((verdict.reason.as_str(), verdict.exit_code()), ("malformed", 2), "{:?}", verdict.errors);
        if !bytes.contains(&b'a') {
            let parity = VerifyOptions { upstream_parity: true, ..VerifyOptions::default() };
            assert_eq!(verify_report(&path, &parity).exit_code(), 1);
        }
    }
}

#[test]
fn path_without_report_is_input_error() {
    let folder = tempfile::tempdir().unwrap();
    let options = VerifyOptions::default();
    let missing = verify_report(&folder.path().join("none.json"), &options);
    assert_eq!(missing.exit_code(), 2);
    assert_eq!(verify_report(folder.path(), &options).exit_code(), 2);
    let path = write_bundle(folder.path(), &report(0.01));
    assert!(verify_report(folder.path(), &options).ok());
    #[cfg(unix)]
    {
        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let verdict = verify_report(&link, &options);
        assert_eq!(verdict.exit_code(), 2);
        assert!(verdict.errors[0].contains("symbolic link"), "{:?}", verdict.errors);
    }
    std::fs::write(folder.path().join("report.json"), "{}").unwrap();
    assert!(verify_report(folder.path(), &options).errors[0].contains("Ambiguous"));

    let verdicts = [missing, verify_report(&path, &options)];
    let line = to_line(&envelope(&verdicts, "2026-11-22T00:00:00+00:00"));
    assert!(!line.contains('\n') && line.starts_with("{\"component\": \"cli\", \"error\""), "{line}");
    assert_eq!(exit_code(&verdicts), 2);
    assert_eq!(exit_code(&verdicts[1..]), 0);
}

#[test]
fn rejects_contradicting_run_reports() {
    let good = synthetic(180, 0.0);
    let context = context(Profile::Ci, Tier::Balanced);
    type Change = fn(&mut invarlock_evidence::run_report::RunReport);
    let changes: [(&str, Change); 12] = [
        ("logloss", |r| r.evaluation_windows.final_.logloss[2] = f64::NAN),
        ("logloss has", |r| r.evaluation_windows.final_.logloss.truncate(3)),
        ("token_counts", |r| r.evaluation_windows.final_.token_counts[2] += 1),
        ("window_ids", |r| r.evaluation_windows.final_.window_ids[2] = 0),
        ("primary_metric.final", |r| r.metrics.primary_metric.final_ = Some(1.0)),
        ("logloss_preview", |r| r.metrics.logloss_preview = Some(1.0)),
        ("preview_hash", |r| r.data.preview_hash = Some("00".repeat(16))),
        ("preview_n", |r| r.data.preview_n = 3),
        ("tokenizer", |r| r.meta.tokenizer_hash = Some("ff".repeat(16))),
        ("ppl_causal", |r| r.metrics.primary_metric.kind = "accuracy".to_owned()),
        ("input_ids[0]", |r| r.evaluation_windows.preview.input_ids[0][0] ^= 1),
        ("labels", |r| r.evaluation_windows.preview.labels = vec![vec![0; 160]; 180]),
    ];
    for (word, change) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        let message = compare(&good, &bad, &context).unwrap_err().to_string();
        assert!(message.contains(word), "{word}: {message}");
    }
    let few = synthetic(20, 0.0);
    assert!(compare(&few, &few, &context).unwrap_err().to_string().contains("E005"));
    let dev = common::context(Profile::Dev, Tier::Balanced);
    let report = compare(&few, &few, &dev).unwrap();
    assert!(verify(&report, Profile::Dev).ok());
    assert_eq!(report["edit_name"], json!("custom"));
    let mut same = dev;
    same.subject_checkpoint_sha256 = same.baseline_checkpoint_sha256.clone();
    assert_eq!(compare(&few, &few, &same).unwrap()["edit_name"], json!("noop"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn strict_json_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = json::parse("report", &bytes);
        let _ = json::parse_run_report("report", &bytes);
    }

    #[test]
    fn verify_never_panics(path in 0usize..400, replacement in 0usize..8) {
        let original = report_small();
        let mut paths = Vec::new();
        every_path(String::new(), original, &mut paths);
        let path = &paths[(path * 7919) % paths.len()];
        let mut changed = original.clone();
        *changed.pointer_mut(path).unwrap() = [
            json!(null), json!([]), json!({}), json!(-1), json!(1e300), json!("x"), json!(u64::MAX), json!([[1], {"a": 2}]),
        ][replacement].clone();
        let _ = gates::verdict_line(&changed);
        for profile in Profile::ALL {
            let _ = verify(&changed, profile).exit_code();
        }
    }
}

fn report_small() -> &'static Value {
    static SMALL: std::sync::OnceLock<Value> = std::sync::OnceLock::new();
    SMALL.get_or_init(|| {
        let run = synthetic(4, 0.0);
        compare(&run, &synthetic(4, 0.02), &context(Profile::Dev, Tier::Balanced)).unwrap()
    })
}

fn every_path(path: String, value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| every_path(format!("{path}/{name}"), member, out));
        }
        Value::Array(members) if members.len() < 5 => {
            members.iter().enumerate().for_each(|(i, member)| every_path(format!("{path}/{i}"), member, out));
        }
        _ => {}
    }
    if !path.is_empty() {
        out.push(path);
    }
}

#[test]
fn equal_input_gives_equal_bytes() {
    assert_eq!(to_bytes(&report(0.01)), to_bytes(&report(0.01)));
}
