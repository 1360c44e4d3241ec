//! A report that was changed after the comparison does not verify, even with a new manifest for it.
#![cfg(feature = "verify")]
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Made, compare_as_json as compare, context, synthetic};
use invarlock_evidence::compare::to_bytes;
use invarlock_evidence::evaluation::{BASELINE_REPORT, REPORT, SUBJECT_REPORT};
use invarlock_evidence::format::to_value;
use invarlock_evidence::job::Role;
use invarlock_evidence::manifest::FILE_NAME;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_evidence::verify::{
    Assurance, ProvenanceStatus, Trust, VerifyOptions, envelope, exit_code, runtime_verify, success_line,
    to_line, verify_report,
};
use invarlock_evidence::{gates, json};
use proptest::prelude::*;
use serde_json::{Value, json};

fn made(shift: f64) -> Made {
    Made::new(180, shift, Profile::Ci, Tier::Balanced)
}

fn verify(made: &Made, profile: Profile) -> invarlock_evidence::verify::Verdict {
    let folder = tempfile::tempdir().unwrap();
    let path = made.write(folder.path());
    verify_report(&path, &VerifyOptions { profile, ..VerifyOptions::default() })
}

#[test]
fn accepts_healthy_and_rejects_damaged_subject() {
    let healthy = made(0.01);
    let verdict = verify(&healthy, Profile::Ci);
    assert!(verdict.ok(), "{:?}", verdict.errors);
    assert_eq!((verdict.assurance, verdict.exit_code()), (Assurance::Consistent, 0));
    let report = to_value(&healthy.report());
    assert!(gates::passed(&report) && gates::verdict_line(&report).starts_with("PASS ratio=1.01"));

    let damaged = made(0.3);
    let verdict = verify(&damaged, Profile::Ci);
    assert_eq!((verdict.ok(), verdict.exit_code()), (false, 1), "{:?}", verdict.errors);
    assert!(verdict.errors.is_empty(), "{verdict:?}");
    // One sentence for one failed gate.
    assert_eq!(verdict.gate_failures.len(), 1, "{verdict:?}");
    let lenient = verify(&damaged, Profile::Dev);
    assert_eq!((lenient.exit_code(), lenient.errors.len()), (1, 0), "{:?}", lenient.errors);
    let report = to_value(&damaged.report());
    assert!(!gates::passed(&report) && gates::verdict_line(&report).starts_with("FAIL"));
    // The release profile requires guards that this version does not implement.
    assert_eq!(verify(&healthy, Profile::Release).exit_code(), 1);
}

#[test]
fn dev_verdict_agrees_in_report_and_verifier() {
    // The final arm is far above the preview. The drift does not decide the dev verdict.
    let with = |shift: f64| {
        Made::with(4, Profile::Dev, Tier::Balanced, &|role, id| {
            let last = if id < 4 { 0.0 } else { 1.0 };
            3.0 + last + 0.1 * (id % 4) as f64 + if role == Role::Subject { shift } else { 0.0 }
        })
    };
    let made = with(0.01);
    let report = to_value(&made.report());
    assert_eq!(report["validation"], json!({"invariants_pass": true, "primary_metric_acceptable": true}));
    assert_eq!((gates::passed(&report), &report["assurance"]["verdict"]), (true, &json!("pass")));
    let verdict = verify(&made, Profile::Dev);
    assert!(verdict.ok(), "{:?}", verdict.errors);
    assert!(success_line(&verdict).contains(" tier=balanced "));
    let drift = gates::gates(&report).into_iter().find(|gate| gate.name.contains("Drift")).unwrap();
    assert!(drift.passed.is_none() && drift.detail.contains("does not decide"));

    let made = with(1.5);
    let report = to_value(&made.report());
    assert_eq!((gates::passed(&report), &report["assurance"]["verdict"]), (false, &json!("fail")));
    let verdict = verify(&made, Profile::Dev);
    assert!(!verdict.ok() && verdict.errors.is_empty(), "{:?}", verdict.errors);
}

#[test]
fn changed_byte_breaks_the_manifest_binding() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(0.01).write(folder.path());
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
fn accepts_only_granted_allowances() {
    let mut made = Made::new(180, 0.01, Profile::Ci, Tier::Balanced);
    let allowances = &mut made.facts.plan.allowances;
    allowances.network = true;
    allowances.granted_by.insert("allow_network".to_owned(), "--allow-network".to_owned());
    made.facts.launcher.network_filter = None;
    let folder = tempfile::tempdir().unwrap();
    let path = made.write(folder.path());
    let verify_with = |granted: &[&str]| {
        let granted = granted.iter().map(|name| (*name).to_owned()).collect();
        verify_report(&path, &VerifyOptions { granted, ..VerifyOptions::default() })
    };
    let verdict = verify_with(&["allow_network"]);
    assert!(verdict.ok(), "{:?}", verdict.errors);
    for granted in [&[][..], &["allow_remote_code"]] {
        let verdict = verify_with(granted);
        assert_eq!((verdict.ok(), verdict.exit_code()), (false, 1));
        assert!(verdict.errors[0].contains("--allow-network"), "{:?}", verdict.errors);
    }
}

#[test]
fn a_pinned_image_matches_or_is_named() {
    let made = Made::new(180, 0.01, Profile::Ci, Tier::Balanced);
    let digest = made.facts.plan.image.clone().unwrap().manifest_digest;
    let folder = tempfile::tempdir().unwrap();
    let path = made.write(folder.path());
    let verify_with = |digest: &str| {
        let expected_image_digest = Some(digest.to_owned());
        verify_report(&path, &VerifyOptions { expected_image_digest, ..VerifyOptions::default() })
    };
    let verdict = verify_with(&digest);
    assert!(verdict.ok() && verdict.matched == ["image"], "{verdict:?}");
    assert_eq!(verdict.provenance.status, ProvenanceStatus::Matched);
    assert_eq!(verdict.provenance.verified, Some(false));
    let verdict = verify_with(&format!("sha256:{}", "00".repeat(32)));
    assert_eq!((verdict.exit_code(), verdict.matched.len()), (1, 0));
    assert!(verdict.errors[0].contains(&digest), "{:?}", verdict.errors);
    let manifest = folder.path().join(FILE_NAME);
    let upper = digest.to_uppercase().replace("SHA", "sha");
    assert_eq!(runtime_verify(&path, &manifest, Some(&upper)).trust, Trust::ExpectedImageDigestMatched);
    assert!(!runtime_verify(&path, &manifest, Some("latest")).ok());
}

#[test]
fn evidence_without_its_plan_is_foreign() {
    let folder = tempfile::tempdir().unwrap();
    let path = Made::new(180, 0.01, Profile::Ci, Tier::Balanced).write(folder.path());
    let manifest = folder.path().join(FILE_NAME);
    let mut value: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    value["context"] = json!({});
    std::fs::write(&manifest, value.to_string()).unwrap();
    let verdict = verify_report(&path, &VerifyOptions::default());
    assert_eq!((verdict.assurance, verdict.exit_code()), (Assurance::Foreign, 1), "{:?}", verdict.errors);
    assert!(verdict.errors[0].contains("--accept-foreign"), "{:?}", verdict.errors);
    let accept = VerifyOptions { accept_foreign: true, ..VerifyOptions::default() };
    let verdict = verify_report(&path, &accept);
    assert_eq!((verdict.assurance, verdict.exit_code()), (Assurance::Foreign, 0), "{:?}", verdict.errors);
    // Where the numbers come from is unknown, but they must agree with each other.
    let mut report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    report["primary_metric"]["ratio_vs_baseline"] = json!(1.0);
    let bytes = to_bytes(&report);
    value["report"]["sha256"] = json!(sha256_hex(&bytes));
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(&manifest, value.to_string()).unwrap();
    assert_eq!(verify_report(&path, &accept).assurance, Assurance::Failed);
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
    let path = made(0.01).write(folder.path());
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
    let changes: [(&str, Change); 13] = [
        ("logloss", |r| r.evaluation_windows.final_.logloss[2] = f64::NAN),
        ("logloss has", |r| r.evaluation_windows.final_.logloss.truncate(3)),
        ("token_counts", |r| r.evaluation_windows.final_.token_counts[2] += 1),
        ("window_ids", |r| r.evaluation_windows.final_.window_ids[2] = 0),
        ("primary_metric.final", |r| r.metrics.primary_metric.final_ = Some(1.0)),
        ("logloss_preview", |r| r.metrics.logloss_preview = Some(1.0)),
        ("preview_hash", |r| r.data.preview_hash = Some("00".repeat(16))),
        ("preview_n", |r| r.data.preview_n = 3),
        ("tokenizer", |r| r.meta.tokenizer_hash = Some("ff".repeat(16))),
        ("ppl_causal", |r| r.metrics.primary_metric.kind = "bleu".to_owned()),
        ("evaluation_windows", |r| r.metrics.primary_metric.kind = "accuracy".to_owned()),
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

    /// Any replacement of a value in one of the files, in evidence of this and of other makers.
    #[test]
    fn verify_never_panics(file in 0usize..4, path in 0usize..2000, replacement in 0usize..8, own in any::<bool>()) {
        let mut files = small().clone();
        if !own {
            files[1].1["context"] = json!({});
        }
        let mut paths = Vec::new();
        every_path(String::new(), &files[file].1, &mut paths);
        let path = &paths[(path * 7919) % paths.len()];
        *files[file].1.pointer_mut(path).unwrap() = [
            json!(null), json!([]), json!({}), json!(-1), json!(1e300), json!("x"), json!(u64::MAX), json!([[1], {"a": 2}]),
        ][replacement].clone();
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in &files {
            std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        }
        let _ = gates::verdict_line(&files[0].1);
        for profile in Profile::ALL {
            let options = VerifyOptions { profile, accept_foreign: true, ..VerifyOptions::default() };
            let _ = to_line(&envelope(&[verify_report(&folder.path().join(REPORT), &options)], ""));
        }
    }
}

/// The files of a small evaluation.
fn small() -> &'static [(&'static str, Value); 4] {
    static SMALL: std::sync::OnceLock<[(&str, Value); 4]> = std::sync::OnceLock::new();
    SMALL.get_or_init(|| {
        let made = Made::new(4, 0.02, Profile::Dev, Tier::Balanced);
        let report = to_value(&made.report());
        let manifest = to_value(&made.facts.manifest(&sha256_hex(&to_bytes(&report))));
        [
            (REPORT, report),
            (FILE_NAME, manifest),
            (BASELINE_REPORT, to_value(&made.baseline)),
            (SUBJECT_REPORT, to_value(&made.subject)),
        ]
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
    assert_eq!(to_bytes(&made(0.01).report()), to_bytes(&made(0.01).report()));
}

/// Parsed, ten million lists would take gigabytes.
#[test]
fn a_report_of_many_lists_is_refused_before_it_is_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(0.01).write(folder.path());
    let mut report = std::fs::read(&path).unwrap();
    report.truncate(report.len() - 2);
    report.extend_from_slice(b",\"x\":[");
    report.extend_from_slice("[[[[[[1]]]]]],".repeat(200_000).as_bytes());
    report.extend_from_slice(b"1]}\n");
    std::fs::write(&path, report).unwrap();
    for upstream_parity in [false, true] {
        let options = VerifyOptions { upstream_parity, accept_foreign: true, ..VerifyOptions::default() };
        let verdict = verify_report(&path, &options);
        assert!(verdict.errors.iter().any(|error| error.contains("1048576 and")), "{:?}", verdict.errors);
    }
    assert!(invarlock_evidence::verify::open_report(&path).unwrap_err().to_string().contains("lists"));
}

/// The time to verify grows with the number of files, not with its square.
#[test]
fn many_hashed_files_are_verified_in_linear_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(0.01).write(folder.path());
    let manifest = folder.path().join(FILE_NAME);
    let original: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let seconds = |files: usize| {
        let mut changed = original.clone();
        let side = &mut changed["context"]["sides"]["subject"];
        let names: Vec<String> = (0..files).map(|i| format!("f{i}")).collect();
        side["checkpoint"]["files"] =
            names.iter().map(|name| json!({"name": name, "bytes": 1, "sha256": "ab"})).collect();
        side["observations"]["inputs"]["value"] = names
            .iter()
            .map(|name| json!({"target": format!("/in/checkpoint/{name}"), "bytes": 1, "file": "1:1 1"}))
            .collect();
        std::fs::write(&manifest, changed.to_string()).unwrap();
        let start = std::time::Instant::now();
        assert!(!verify_report(&path, &VerifyOptions::default()).ok());
        start.elapsed().as_secs_f64()
    };
    let (few, many) = (seconds(2_000), seconds(20_000));
    // Quadratic time would be a hundred times as long.
    assert!(many < 40.0 * few.max(0.02), "{few:.3} s, {many:.3} s");
}
