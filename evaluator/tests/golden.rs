//! Agreement with upstream InvarLock 0.12.1 on the checkpoints in `tests/fixtures/upstream/` of the workspace.
#![allow(clippy::print_stderr, reason = "tests print how close the numbers are")]

mod common;

use std::fs;
use std::path::Path;

use common::{baseline, extract, run, subject};
use serde_json::{Value, json};

/// A report of upstream.
fn golden(path: &Path) -> Value {
    // Upstream writes NaN, which is not JSON.
    let text = fs::read_to_string(path).expect("a report").replace("NaN", "null");
    serde_json::from_str(&text).expect("JSON")
}

fn close(found: &Value, truth: &Value, what: &str) -> f64 {
    let (found, truth) = (found.as_f64().expect(what), truth.as_f64().expect(what));
    let error = ((found - truth) / truth).abs();
    assert!(error <= 1e-5, "{what}: {found} instead of {truth}");
    error
}

fn compare(report: &Value, golden: &Value) {
    let mut worst = 0f64;
    for arm in ["preview", "final"] {
        let (ours, theirs) = (&report["evaluation_windows"][arm], &golden["evaluation_windows"][arm]);
        for field in [
            "window_ids",
            "input_ids",
            "attention_masks",
            "token_counts",
            "masked_token_counts",
            "actual_token_counts",
            "labels",
        ] {
            // Not `assert_eq`, which would print all of them.
            assert!(ours[field] == theirs[field], "{arm} {field} differ");
        }
        let losses = ours["logloss"].as_array().expect("losses");
        assert_eq!(losses.len(), 240);
        for (i, loss) in losses.iter().enumerate() {
            worst = worst.max(close(loss, &theirs["logloss"][i], "loss"));
        }
        close(&report["metrics"]["primary_metric"][arm], &golden["metrics"]["primary_metric"][arm], arm);
        let mean = format!("logloss_{arm}");
        close(&report["metrics"][&mean], &golden["metrics"][&mean], &mean);
    }
    for field in [
        "preview_hash",
        "final_hash",
        "dataset_hash",
        "preview_total_tokens",
        "final_total_tokens",
        "vocab_size",
    ] {
        assert_eq!(report["data"][field], golden["data"][field], "{field}");
    }
    for field in ["ids_sha256", "masking_sha256"] {
        let path = format!("/provenance/provider_digest/{field}");
        assert_eq!(report.pointer(&path), golden.pointer(&path), "{field}");
    }
    for field in ["masked_tokens_total", "masked_tokens_preview", "masked_tokens_final"] {
        assert_eq!(report["metrics"][field], golden["metrics"][field], "{field}");
    }
    assert_eq!(report["metrics"]["primary_metric"]["kind"], golden["metrics"]["primary_metric"]["kind"]);
    assert_eq!(report["meta"]["adapter"], golden["meta"]["adapter"]);
    assert_eq!(report["meta"]["model_profile"], golden["meta"]["model_profile"]);
    let (ours, theirs) =
        (&report["guards"][0]["details"]["checks"], &golden["guards"][0]["details"]["baseline_checks"]);
    for field in ["parameter_count", "embedding_vocab_sizes", "config_vocab_size", "weight_tying"] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
    let names: Vec<&str> =
        report["guards"].as_array().expect("guards").iter().filter_map(|g| g["name"].as_str()).collect();
    assert_eq!(names, ["invariants", "spectral", "rmt", "variance"]);
    eprintln!("worst relative difference of a loss: {worst:.1e}");
}

/// Measures a baseline, and subjects on its windows, and compares them with upstream's runs. `subjects` are names of
/// checkpoints and of upstream's cases.
fn assert_matches_upstream(inputs: &str, texts: &str, model: &str, subjects: &[(&str, &str)]) {
    let fixtures = tempfile::tempdir().expect("a temporary directory");
    for archive in [inputs, "reports-0.12.1.tar.zst", "reports-0.8.0.tar.zst"] {
        extract(archive, fixtures.path());
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let checkpoint = |name: &str| fixtures.path().join("models").join(name);
    let mut job = baseline(&checkpoint(model), &fixtures.path().join(texts), 128, 240);
    job["profile"] = json!("ci");
    let report = run(dir.path(), &job).report();
    for (name, case) in subjects {
        let case = fixtures.path().join(case);
        let source = case.join("source.report.json");
        // Upstream reused a baseline for masked models, whose report is not among the fixtures.
        if source.exists() {
            compare(&report, &golden(&source));
        }
        let found = run(dir.path(), &subject(dir.path(), &checkpoint(name), &report)).report();
        eprint!("{name}: ");
        compare(&found, &golden(&case.join("edited.report.json")));
    }
}

#[test]
fn gpt2_matches_upstream() {
    let subjects = [
        ("gpt2-tiny-noop", "0.12.1/gpt2-noop-ci-host"),
        ("gpt2-tiny-int8", "0.12.1/gpt2-int8-ci-host"),
        ("gpt2-tiny-damaged", "0.12.1/gpt2-damaged-ci-host"),
    ];
    assert_matches_upstream("inputs.tar.zst", "valid.jsonl", "gpt2-tiny", &subjects);
}

#[test]
fn llama_matches_upstream() {
    let subjects = [
        ("llama-tiny-int8", "0.12.1/llama-int8-ci-host"),
        ("llama-tiny-damaged", "0.12.1/llama-damaged-ci-host"),
    ];
    assert_matches_upstream("inputs.tar.zst", "valid.jsonl", "llama-tiny", &subjects);
}

/// The masks too, bit by bit.
#[test]
fn bert_matches_upstream() {
    let subjects = [
        ("bert-tiny-int8", "0.12.1/bert-int8-ci-samepath"),
        ("bert-tiny-damaged", "0.12.1/bert-damaged-ci-samepath"),
        ("bert-tiny-int8", "0.8.0/bert-int8-ci-samepath"),
        ("bert-tiny-damaged", "0.8.0/bert-damaged-ci-samepath"),
    ];
    assert_matches_upstream("inputs-mlm.tar.zst", "valid_mlm.jsonl", "bert-tiny", &subjects);
}
