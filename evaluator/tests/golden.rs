//! Agreement with upstream InvarLock 0.12.1 on the shared models (`../shared/data`), where they are present.
#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{baseline, run, subject};
use serde_json::{Value, json};

/// The shared data, if this machine has it; says so when not.
fn data(test: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("INVARLOCK_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"));
    let data = shared.join("data");
    if data.join("golden/upstream-0.12.1.tar.zst").exists() {
        return Some(data);
    }
    eprintln!("SKIPPED {test}: no shared data at {} (set INVARLOCK_SHARED)", shared.display());
    None
}

/// A report out of the golden archive.
fn golden(data: &Path, place: &Path, file: &str) -> Option<Value> {
    let archive = data.join("golden/upstream-0.12.1.tar.zst");
    let command = r#"zstd -dc --long=27 -- "$0" | tar -x -C "$1" -f - --wildcards "*$2""#;
    let unpacked = Command::new("sh").args(["-c", command]).arg(&archive).arg(place).arg(file).status();
    if !unpacked.is_ok_and(|s| s.success()) {
        eprintln!("SKIPPED golden {file}: cannot unpack {} (zstd and tar are needed)", archive.display());
        return None;
    }
    let mut found = vec![place.to_owned()];
    while let Some(path) = found.pop() {
        if path.is_dir() {
            found.extend(fs::read_dir(&path).expect("readable").flatten().map(|e| e.path()));
        } else if path.ends_with(file) {
            // Upstream writes NaN, which is not JSON.
            let text = fs::read_to_string(path).expect("readable").replace("NaN", "null");
            return Some(serde_json::from_str(&text).expect("JSON"));
        }
    }
    panic!("{file} is not in {}", archive.display());
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
        for field in
            ["window_ids", "input_ids", "attention_masks", "token_counts", "actual_token_counts", "labels"]
        {
            // Not assert_eq: it would print all of them.
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

/// A baseline, and subjects on its windows, against the golden runs named.
fn agree(test: &str, model: &str, subjects: &[(&str, &str)]) {
    let Some(data) = data(test) else { return };
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| data.join("models").join(name);
    let mut job = baseline(&path(model), &data.join("valid.jsonl"), 128, 240);
    job["profile"] = json!("ci");
    let report = run(place.path(), &job).report();
    for (subject_name, case) in subjects {
        let Some(truth) = golden(&data, place.path(), &format!("{case}/source.report.json")) else { return };
        compare(&report, &truth);
        let Some(truth) = golden(&data, place.path(), &format!("{case}/edited.report.json")) else { return };
        let found = run(place.path(), &subject(place.path(), &path(subject_name), &report)).report();
        eprint!("{subject_name}: ");
        compare(&found, &truth);
    }
}

#[test]
fn gpt2_agrees_with_upstream() {
    let subjects = [
        ("gpt2-tiny-noop", "gpt2-noop-ci-host"),
        ("gpt2-tiny-int8", "gpt2-int8-ci-host"),
        ("gpt2-tiny-damaged", "gpt2-damaged-ci-host"),
    ];
    agree("gpt2_agrees_with_upstream", "gpt2-tiny", &subjects);
}

#[test]
fn llama_agrees_with_upstream() {
    let subjects =
        [("llama-tiny-int8", "llama-int8-ci-host"), ("llama-tiny-damaged", "llama-damaged-ci-host")];
    agree("llama_agrees_with_upstream", "llama-tiny", &subjects);
}
