//! Pairs of texts on a sequence-to-sequence model: the windows of a dataset give the losses of transformers, also when they are replayed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{baseline, checkpoint_of_words, family, run, subject};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

/// A text that the tokenizer of [`checkpoint_of_words`] turns into these tokens.
fn text(ids: &Value) -> String {
    ids.as_array().unwrap().iter().map(|id| format!("w{id} ")).collect()
}

/// Each pair of the fixture once in each arm. Arms must not be equal, so the final one has other sources of two pairs.
fn inputs(name: &str) -> (TempDir, Value, Value) {
    let dir = tempfile::tempdir().unwrap();
    checkpoint_of_words(name, &dir.path().join("checkpoint"));
    let expected: Value =
        serde_json::from_slice(&fs::read(family(name).join("expected.json")).unwrap()).unwrap();
    let pair = |i: usize| json!({"a": text(&expected["sources"][i]), "b": text(&expected["targets"][i])});
    let other = |source: &str| json!({"a": source, "b": "w5 w2"});
    let rows = [pair(0), pair(1), other("w9 w8"), pair(2), other("w7"), other("w9")];
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(dir.path().join("pairs.jsonl"), lines).unwrap();
    let mut job = baseline(&dir.path().join("checkpoint"), &dir.path().join("pairs.jsonl"), 64, 3);
    job["windows"]["text_field"] = json!("a");
    job["windows"]["target_field"] = json!("b");
    job["provider"] = json!("local_jsonl_pairs");
    (dir, job, expected)
}

#[test]
fn losses_of_pairs_are_those_of_transformers() {
    for name in ["t5", "bart"] {
        let (dir, job, expected) = inputs(name);
        let report = run(dir.path(), &job).report();
        let again = run(dir.path(), &subject(dir.path(), &dir.path().join("checkpoint"), &report)).report();
        for report in [&report, &again] {
            let windows = &report["evaluation_windows"];
            for (i, loss) in [
                &windows["preview"]["logloss"][0],
                &windows["preview"]["logloss"][1],
                &windows["final"]["logloss"][0],
            ]
            .into_iter()
            .enumerate()
            {
                let (loss, truth) = (loss.as_f64().unwrap(), expected["losses"][i].as_f64().unwrap());
                assert!(
                    ((loss - truth) / truth).abs() < 1e-5,
                    "{name}: pair {i} has the loss {loss}, expected {truth}"
                );
            }
            assert_eq!(report["metrics"]["primary_metric"]["kind"], "ppl_seq2seq");
            assert_eq!(report["data"]["dataset"], "local_jsonl_pairs");
            assert_eq!(windows["preview"]["token_counts"], json!([17, 33, 2]));
            assert_eq!(windows["preview"]["actual_token_counts"], json!([23, 40, 2]));
        }
        assert_eq!(
            report["evaluation_windows"]["final"]["labels"],
            again["evaluation_windows"]["final"]["labels"]
        );
        assert_eq!(report["evaluation_windows"]["final"]["predicted_texts"][1], "w5 w2");
        // Targets count as well: w5 and w2 are in no source.
        let used = report["data"]["used_tokens"].as_array().unwrap();
        assert!(["w2", "w5", "w7", "w9"].iter().all(|token| used.contains(&json!(token))), "{used:?}");
    }
}

#[test]
fn datasets_and_settings_that_do_not_fit_the_model_are_refused() {
    let (dir, job, _) = inputs("t5");
    let refused_as = |expected: &str, change: &dyn Fn(&mut Value), words: &[&str]| {
        let mut job = job.clone();
        change(&mut job);
        let (kind, message) = run(dir.path(), &job).error();
        assert_eq!(kind, expected, "{message}");
        words.iter().for_each(|word| assert!(message.contains(word), "{message}"));
    };
    let refused = |change: &dyn Fn(&mut Value), words: &[&str]| refused_as("input", change, words);
    refused_as(
        "unsupported",
        &|job| job["windows"]["packing"] = json!("documents"),
        &["packing: documents is not supported for a sequence-to-sequence model"],
    );
    refused(
        &|job| drop(job["windows"].as_object_mut().unwrap().remove("target_field")),
        &["the dataset has single texts", "(t5) is a sequence-to-sequence model", "local_jsonl_pairs"],
    );
    refused(&|job| job["provider"] = json!("local_jsonl"), &["provider local_jsonl, which does not fit"]);
    refused(
        &|job| job["metric"] = json!("ppl_mlm"),
        &["the metric ppl_mlm measures a masked language model"],
    );
    let masking = json!({"mask_prob": 0.2, "seed": 1, "random_token_prob": 0.1, "original_token_prob": 0.1});
    refused(&|job| job["masking"] = masking.clone(), &["settings of masking", "remove mask_prob"]);
    refused(&|job| job["windows"]["target_field"] = json!("c"), &["the field \"c\" is missing"]);
}
