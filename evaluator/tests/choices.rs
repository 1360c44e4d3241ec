//! Examples with choices: the losses of choices are those of transformers, also when they are replayed, and give the accuracy.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{baseline, run, subject};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Largest relative difference of the loss of a choice.
const TOLERANCE: f64 = 1e-5;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/baseline")
}

/// The rows that `tests/reference/make_choices.py` made, with the losses of transformers.
fn expected() -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/choices/expected.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// A job of the demo's baseline on rows; half of them are in each arm.
fn job(rows: &[Value]) -> (TempDir, Value) {
    let dir = tempfile::tempdir().unwrap();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(dir.path().join("rows.jsonl"), lines).unwrap();
    let mut job = baseline(&demo(), &dir.path().join("rows.jsonl"), 64, rows.len() / 2);
    job["windows"]["text_field"] = json!("question");
    job["windows"]["answers"] =
        json!({"kind": "choices", "choices_field": "choices", "answer_field": "answer"});
    job["provider"] = json!("local_jsonl_choices");
    job["metric"] = json!("accuracy");
    (dir, job)
}

/// The sums of the losses of each example of an arm.
fn sums(arm: &Value) -> Vec<Vec<f64>> {
    let number = |list: &str, i: usize| arm[list][i].as_f64().unwrap();
    let mut first = 0;
    let of = |example: &Value| {
        let choices = example["choices"].as_u64().unwrap() as usize;
        first += choices;
        (first - choices..first).map(|i| number("logloss", i) * number("token_counts", i)).collect()
    };
    arm["examples"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn losses_of_choices_are_those_of_transformers() {
    let rows = expected();
    let (dir, job) = job(&rows);
    let report = run(dir.path(), &job).report();
    let mut again = subject(dir.path(), &demo(), &report);
    again["metric"] = json!("accuracy");
    let again = run(dir.path(), &again).report();
    let mut right = [0; 2];
    for report in [&report, &again] {
        let arms = ["preview", "final"].map(|name| &report["evaluation_windows"][name]);
        let found = arms.into_iter().flat_map(sums);
        for (number, (found, row)) in found.zip(&rows).enumerate() {
            let truth: Vec<f64> =
                row["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
            assert_eq!(found.len(), truth.len());
            for (loss, truth) in found.iter().zip(&truth) {
                let difference = ((loss - truth) / truth).abs();
                assert!(difference < TOLERANCE, "example {number}: the loss {loss}, expected {truth}");
            }
            let answer = row["answer"].as_u64().unwrap() as usize;
            let best = (0..truth.len()).min_by(|one, other| truth[*one].total_cmp(&truth[*other]));
            right[number / (rows.len() / 2)] += usize::from(best == Some(answer));
        }
        let [preview, last] = right;
        let each = rows.len() / 2;
        let metrics = &report["metrics"];
        assert_eq!(metrics["primary_metric"]["kind"], "accuracy");
        assert_eq!(metrics["primary_metric"]["final"], last as f64 / each as f64);
        assert_eq!(metrics["classification"]["preview"], json!({"n_correct": preview, "n_total": each}));
        assert_eq!(
            (&report["data"]["final_n"], &report["data"]["loss_type"]),
            (&json!(each), &json!("classification"))
        );
        assert_eq!(report["meta"]["model_profile"]["cert_lints"], json!([]));
        right = [0; 2];
    }
    let predicted = &report["evaluation_windows"]["final"]["predicted_texts"];
    let text = rows[rows.len() / 2]["choices"][0].as_str().unwrap();
    assert!(predicted[0].as_str().unwrap().ends_with(text), "{predicted}");
}

#[test]
fn labels_are_choices_of_every_row() {
    let row = |i: usize| json!({"text": format!("The {i} books were"), "label": if i.is_multiple_of(3) { "new" } else { "old" }});
    let rows: Vec<Value> = (0..6).map(row).collect();
    let (dir, mut job) = job(&rows);
    job["windows"]["text_field"] = json!("text");
    job["windows"]["answers"] = json!({"kind": "labels", "label_field": "label"});
    job["provider"] = json!("local_jsonl_labels");
    let report = run(dir.path(), &job).report();
    let examples = |answers: [u64; 3]| json!(answers.map(|answer| json!({"choices": 2, "answer": answer})));
    assert_eq!(report["evaluation_windows"]["preview"]["examples"], examples([0, 1, 1]));
    assert_eq!(report["evaluation_windows"]["final"]["examples"], examples([0, 1, 1]));
    job["windows"]["answers"]["labels"] = json!(["old", "good"]);
    let (kind, message) = run(dir.path(), &job).error();
    assert_eq!(kind, "input");
    assert!(message.contains("row 1 of the dataset") && message.contains("the label \"new\""), "{message}");
}

#[test]
fn rows_and_settings_that_do_not_fit_are_refused() {
    let rows = expected();
    let refused_as = |expected: &str, change: &dyn Fn(&mut Value), words: &[&str]| {
        let (dir, mut job) = job(&rows);
        change(&mut job);
        let (kind, message) = run(dir.path(), &job).error();
        assert_eq!(kind, expected, "{message}");
        words.iter().for_each(|word| assert!(message.contains(word), "{message}"));
    };
    let refused = |change: &dyn Fn(&mut Value), words: &[&str]| refused_as("input", change, words);
    refused(
        &|job| job["seq_len"] = json!(16),
        &["row 1 of the dataset", "choice 0", "but seq_len is 16", "raise seq_len"],
    );
    refused(&|job| job["final_n"] = json!(9), &["has 12 examples", "final_n 9 need 15"]);
    refused(
        &|job| job["metric"] = json!("ppl_causal"),
        &["the metric is ppl_causal, but the dataset has examples"],
    );
    refused(
        &|job| drop(job["windows"].as_object_mut().unwrap().remove("answers")),
        &["the metric is accuracy, but the dataset has no choices", "local_jsonl_choices"],
    );
    refused(&|job| job["provider"] = json!("local_jsonl"), &["provider local_jsonl, which does not fit"]);
    refused(
        &|job| job["windows"]["answers"]["answer_field"] = json!("key"),
        &["line 1", "the field \"key\" is missing"],
    );
    refused_as(
        "unsupported",
        &|job| job["windows"]["packing"] = json!("documents"),
        &["packing: documents is not supported for an accuracy"],
    );
    let mut wrong = rows.clone();
    wrong[3]["answer"] = json!(7);
    let (dir, job) = job(&wrong);
    let (_, message) = run(dir.path(), &job).error();
    assert!(
        message.contains("line 4: the field \"answer\" is 7, which is none of the 5 choices"),
        "{message}"
    );
}
