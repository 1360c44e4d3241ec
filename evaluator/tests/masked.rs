//! Masked language models: which rows they are measured on, and the tokenizer that a subject needs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{baseline, checkpoint_of_words, run, subject};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A checkpoint whose mask token is 4.
fn checkpoint(dir: &Path) {
    checkpoint_of_words("bert", dir);
    fs::write(dir.join("tokenizer_config.json"), r#"{"mask_token": "w4"}"#).unwrap();
}

/// A directory with the checkpoint and a dataset, and the job of a baseline.
fn inputs() -> (TempDir, Value) {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(&dir.path().join("base"));
    let text =
        |row: usize| (0..12).map(|i| format!("w{} ", 5 + (row * 17 + i * 7) % 100)).collect::<String>();
    let lines: String = (0..8).map(|row| format!("{}\n", json!({"text": text(row)}))).collect();
    fs::write(dir.path().join("texts.jsonl"), lines).unwrap();
    let job = baseline(&dir.path().join("base"), &dir.path().join("texts.jsonl"), 16, 3);
    (dir, job)
}

#[test]
fn the_tokens_that_windows_use_include_the_masked_ones() {
    let (dir, job) = inputs();
    let report = run(dir.path(), &job).report();
    let used = report["data"]["used_tokens"].as_array().unwrap();
    let labels = report["evaluation_windows"]["preview"]["labels"].as_array().unwrap().iter();
    let masked: Vec<i64> = labels
        .flat_map(|row| row.as_array().unwrap())
        .filter_map(Value::as_i64)
        .filter(|l| *l >= 0)
        .collect();
    assert!(!masked.is_empty());
    for id in masked {
        assert!(used.contains(&json!(format!("w{id}"))), "w{id} is not in {used:?}");
    }
}

/// The windows of a report before they were masked.
fn originals(report: &Value) -> Vec<Vec<i64>> {
    let arms = ["preview", "final"].map(|arm| &report["evaluation_windows"][arm]);
    let rows =
        |arm: &Value, name: &str| -> Vec<Vec<i64>> { serde_json::from_value(arm[name].clone()).unwrap() };
    let original = |(ids, labels): (Vec<i64>, Vec<i64>)| {
        ids.iter().zip(labels).map(|(id, label)| if label >= 0 { label } else { *id }).collect()
    };
    arms.iter()
        .flat_map(|arm| rows(arm, "input_ids").into_iter().zip(rows(arm, "labels")))
        .map(original)
        .collect()
}

#[test]
fn a_seed_draws_rows_of_masked_windows() {
    let (dir, mut job) = inputs();
    let in_order = originals(&run(dir.path(), &job).report());
    job["provider"] = json!("hf_text");
    let drawn = [42, 43].map(|seed| {
        job["seed"] = json!(seed);
        originals(&run(dir.path(), &job).report())
    });
    // `random.Random(42).shuffle` of 8 rows in CPython.
    let rows = |windows: &[Vec<i64>]| -> Vec<i64> {
        // The first word of a row names it, since 17 and 100 have no common factor.
        windows.iter().map(|window| (0..8).find(|row| 5 + row * 17 % 100 == window[0]).unwrap()).collect()
    };
    assert_eq!(rows(&in_order), [0, 1, 2, 3, 4, 5]);
    assert_eq!(rows(&drawn[0]), [3, 4, 6, 7, 2, 5]);
    assert_ne!(rows(&drawn[0]), rows(&drawn[1]));
}

#[test]
fn documents_and_difficulty_do_not_choose_rows() {
    let (dir, job) = inputs();
    for (setting, value, word) in [
        ("provider", json!("wikitext2"), "wikitext2 is not supported for a masked language model"),
        ("packing", json!("documents"), "packing: documents is not supported for a masked language model"),
    ] {
        let mut job = job.clone();
        match setting {
            "packing" => job["windows"][setting] = value,
            _ => job[setting] = value,
        }
        let (kind, message) = run(dir.path(), &job).error();
        assert_eq!(kind, "unsupported", "{message}");
        assert!(message.contains(word), "{message}");
    }
    let talk = json!({"text": [{"role": "user", "content": "w5 w6"}]}).to_string();
    fs::write(dir.path().join("texts.jsonl"), talk).unwrap();
    let (kind, message) = run(dir.path(), &job).error();
    assert_eq!(kind, "unsupported", "{message}");
    assert!(message.contains("conversations are not supported for a masked language model"), "{message}");
}

#[test]
fn a_subject_needs_the_tokenizer_that_names_the_mask() {
    let (dir, job) = inputs();
    let report = run(dir.path(), &job).report();
    let other = dir.path().join("other");
    checkpoint(&other);
    assert_eq!(run(dir.path(), &subject(dir.path(), &other, &report)).code, Some(0));
    fs::remove_file(other.join("tokenizer.json")).unwrap();
    let (kind, message) = run(dir.path(), &subject(dir.path(), &other, &report)).error();
    assert_eq!(kind, "input", "{message}");
    assert!(message.contains("no tokenizer"), "{message}");
}
