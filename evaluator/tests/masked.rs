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

#[test]
fn rows_are_taken_in_order_only() {
    let (dir, job) = inputs();
    for (setting, value, word) in [
        ("provider", json!("hf_text"), "hf_text is not supported for a masked language model"),
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
