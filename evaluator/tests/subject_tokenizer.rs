//! A subject is measured on the token ids of the baseline's windows: it needs no tokenizer, and only tokens that windows use must agree.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Ran, Tiny, baseline, letters, run, subject};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

/// The report of a baseline, and the run of a subject that differs from it.
fn subject_of(change: impl FnOnce(&mut Tiny)) -> (TempDir, Value, Ran) {
    let dir = tempfile::tempdir().unwrap();
    let (base, other) = (dir.path().join("base"), dir.path().join("other"));
    Tiny::new().write(&base);
    // The word `text` has no `a`, so no window uses that letter.
    fs::write(dir.path().join("data.jsonl"), letters(40).replace('a', "b")).unwrap();
    let report = run(dir.path(), &baseline(&base, &dir.path().join("data.jsonl"), 16, 4)).report();
    let mut tiny = Tiny::new();
    change(&mut tiny);
    tiny.write(&other);
    if tiny.tokenizer.is_null() {
        fs::remove_file(other.join("tokenizer.json")).unwrap();
    }
    let ran = run(dir.path(), &subject(dir.path(), &other, &report));
    (dir, report, ran)
}

/// Adds tokens to the tokenizer, and rows to the embedding and the head up to `rows`.
fn add_tokens(tiny: &mut Tiny, tokens: &[&str], rows: usize) {
    tiny.tokenizer["added_tokens"] = tokens
        .iter()
        .zip(27..)
        .map(|(content, id)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    tiny.config["vocab_size"] = json!(rows);
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let (_, shape, values) = tiny.tensor(name);
        values.resize(rows * shape[1], -3.0);
        shape[0] = rows;
    }
}

#[test]
fn a_baseline_states_the_tokens_of_its_windows() {
    let (_dir, report, ran) = subject_of(|_| ());
    let tokens: Vec<&str> = report["data"]["used_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_str().unwrap())
        .collect();
    assert!(tokens.starts_with(&["b", "c"]) && tokens.is_sorted() && tokens.len() <= 25, "{tokens:?}");
    assert_eq!(report["data"]["tokenizer_mapping_sha256"].as_str().unwrap().len(), 64);
    // The same tokenizer is not described again.
    let same = ran.report();
    assert_eq!(same["meta"]["evaluator"].get("tokenizer"), None);
    assert_eq!(same["data"].get("used_tokens"), None);
    assert_eq!(same["data"]["tokenizer_mapping_sha256"], report["data"]["tokenizer_mapping_sha256"]);
}

#[test]
fn a_subject_needs_no_tokenizer() {
    let (_dir, report, ran) = subject_of(|tiny| tiny.tokenizer = Value::Null);
    let found = ran.report();
    assert_eq!(found["meta"]["evaluator"]["tokenizer"], json!({"kind": "missing"}));
    assert_eq!(found["meta"]["tokenizer_hash"], report["meta"]["tokenizer_hash"]);
    assert_eq!(found["metrics"]["logloss_final"], report["metrics"]["logloss_final"]);
}

#[test]
fn added_tokens_and_a_padded_embedding_are_accepted() {
    let (_dir, report, ran) = subject_of(|tiny| add_tokens(tiny, &["[PAD]", "<|im_start|>"], 64));
    let found = ran.report();
    let own = &found["meta"]["evaluator"]["tokenizer"];
    assert_eq!(
        (&own["kind"], &own["added_tokens"], &own["vocab_size"]),
        (&json!("other"), &json!(2), &json!(29))
    );
    assert_eq!(own["added_token_names"], json!(["[PAD]", "<|im_start|>"]));
    assert_eq!(own["same_mapping"], true);
    assert_eq!(found["meta"]["tokenizer_hash"], report["meta"]["tokenizer_hash"]);
    assert_ne!(own["hash"], report["meta"]["tokenizer_hash"]);
}

#[test]
fn a_renamed_token_is_refused_where_a_window_uses_it() {
    let rename = |tiny: &mut Tiny, from: &str| {
        let vocabulary = tiny.tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let id = vocabulary.remove(from).unwrap();
        vocabulary.insert("renamed".to_owned(), id);
    };
    let (_dir, _, ran) = subject_of(|tiny| rename(tiny, "c"));
    let (kind, message) = ran.error();
    assert_eq!(kind, "input");
    let expected = "tokenizer mismatch: the id 3, which the windows use, is \"c\" in the baseline and \"renamed\" in the subject";
    assert!(message.starts_with(expected), "{message}");
    let (_dir, _, ran) = subject_of(|tiny| rename(tiny, "a"));
    let own = &ran.report()["meta"]["evaluator"]["tokenizer"];
    assert_eq!((&own["kind"], &own["added_tokens"]), (&json!("other"), &json!(0)));
}

#[test]
fn another_way_from_text_to_ids_is_recorded() {
    let (_dir, _, ran) = subject_of(|tiny| tiny.tokenizer["normalizer"] = json!({"type": "Lowercase"}));
    let own = &ran.report()["meta"]["evaluator"]["tokenizer"];
    assert_eq!((&own["same_mapping"], &own["added_tokens"]), (&json!(false), &json!(0)));
}

#[test]
fn a_baseline_needs_a_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    Tiny::new().write(&base);
    fs::remove_file(base.join("tokenizer.json")).unwrap();
    fs::write(dir.path().join("data.jsonl"), letters(40)).unwrap();
    let ran = run(dir.path(), &baseline(&base, &dir.path().join("data.jsonl"), 16, 4));
    assert!(ran.error().1.contains("no tokenizer"), "{:?}", ran.error());
}
