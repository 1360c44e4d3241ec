//! `bf16x3`: losses next to those in float32, and the same bits for any threads, blocks and resident weights, and after an interruption.
#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Ran, Tiny, baseline, run};
use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::math::products::Products;
use invarlock_evaluator::measure::{Memory, Workers};
use invarlock_evaluator::model::{Arithmetic, Example, Model};
use invarlock_evidence::format::compute_dtype::ComputeDtype;
use invarlock_evidence::format::objective::Objective;
use serde_json::{Value, json};

/// At least as long as every window of the cases.
const SEQ_LEN: usize = 1024;

/// The arithmetic; none where the machine lacks the unit, which is printed.
fn bf16x3(test: &str) -> Option<Products> {
    Products::of(ComputeDtype::Bf16x3).map_err(|error| eprintln!("SKIPPED {test}: {error}")).ok()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Checkpoints of causal models: those of the demo and of the reference cases.
fn checkpoints() -> Vec<PathBuf> {
    let reference = fs::read_dir(root().join("tests/reference")).unwrap().map(|entry| entry.unwrap().path());
    let demo = ["baseline", "healthy", "damaged"].map(|name| root().join("demo").join(name));
    let mut found: Vec<PathBuf> =
        reference.chain(demo).filter(|path| path.join("config.json").exists()).collect();
    found.sort();
    found
}

/// The windows of a reference case, or the first texts of the demo as bytes.
fn windows(directory: &Path, vocab: usize) -> Vec<Vec<u32>> {
    let Ok(reference) = fs::read(directory.join("reference.json")) else {
        let texts = fs::read(root().join("demo/valid.jsonl")).unwrap();
        return texts
            .chunks(64)
            .take(24)
            .map(|text| text.iter().map(|byte| u32::from(*byte) % vocab as u32).collect())
            .collect();
    };
    let reference: Value = serde_json::from_slice(&reference).unwrap();
    let ids = |window: &Value| {
        let pairs =
            window["input_ids"].as_array().unwrap().iter().zip(window["attention_mask"].as_array().unwrap());
        pairs.filter(|(_, mask)| **mask == 1).map(|(id, _)| id.as_u64().unwrap() as u32).collect()
    };
    reference["windows"].as_array().unwrap().iter().map(ids).collect()
}

fn bits(losses: &[f64]) -> Vec<u64> {
    losses.iter().map(|loss| loss.to_bits()).collect()
}

#[test]
fn losses_are_those_of_float32_and_do_not_depend_on_threads_or_blocks() {
    let Some(products) = bf16x3("losses_are_those_of_float32_and_do_not_depend_on_threads_or_blocks") else {
        return;
    };
    let mut worst = (0f64, PathBuf::new());
    let mut measured = 0;
    for directory in checkpoints() {
        let name = directory.display();
        let checkpoint = Checkpoint::open(&directory).unwrap();
        let model =
            Model::load_with(&checkpoint, SEQ_LEN, Arithmetic { products, ..Arithmetic::default() }).unwrap();
        if model.info.objective != Objective::Causal {
            continue;
        }
        let windows = windows(&directory, model.info.vocab_size);
        let examples: Vec<Example<'_>> = windows.iter().map(|window| Example::causal(window)).collect();
        let single = Model::load(&checkpoint, SEQ_LEN).unwrap();
        let expected = Workers::new(Some(2)).unwrap().losses(&single, &examples, &|_| ());
        let losses = |threads, memory: Option<Memory>| {
            let workers = Workers::new(Some(threads)).unwrap();
            let workers = memory.into_iter().fold(workers, Workers::with_memory);
            workers.losses(&model, &examples, &|_| ())
        };
        let found = losses(1, None);
        // The weights of the reference cases are random and large, so that errors grow: losses reach 34. Those of the demo are trained.
        let most = if directory.join("reference.json").exists() { 3e-5 } else { 1e-5 };
        for (found, expected) in found.iter().zip(&expected) {
            let difference = ((found - expected) / expected).abs();
            assert!(difference <= most, "{name}: {found} instead of {expected}");
            if difference > worst.0 {
                worst = (difference, directory.clone());
            }
        }
        assert_ne!(bits(&found), bits(&expected), "{name}: another arithmetic has other bits");
        for threads in [2, 4] {
            assert_eq!(bits(&losses(threads, None)), bits(&found), "{name}: {threads} threads");
            let streamed = Memory { resident: 0, block: 200, state: 1 << 30 };
            assert_eq!(
                bits(&losses(threads, Some(streamed))),
                bits(&found),
                "{name}: {threads} threads, streamed"
            );
        }
        measured += 1;
    }
    eprintln!("{measured} checkpoints, worst relative difference {:.1e} ({})", worst.0, worst.1.display());
    assert!(measured > 10, "{measured}");
}

/// Runs a job with a type of numbers.
fn measure(dir: &Path, dtype: &str, more: &[(&str, Value)]) -> Ran {
    let mut job = baseline(&dir.join("checkpoint"), &dir.join("data.jsonl"), 128, 10);
    job["compute_dtype"] = json!(dtype);
    more.iter().for_each(|(name, value)| job[*name] = value.clone());
    run(dir, &job)
}

#[test]
fn reports_and_journals_name_the_arithmetic() {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new();
    tiny.config["max_position_embeddings"] = json!(128);
    tiny.write(&dir.path().join("checkpoint"));
    let letter = |i: usize, j: usize| char::from(b'a' + ((i * 31 + j * (i + 7)) % 26) as u8).to_string();
    let text = |i: usize| (0..128).map(|j| letter(i, j)).collect::<Vec<_>>().join(" ");
    let rows: String = (0..20).map(|i| json!({"text": text(i)}).to_string() + "\n").collect();
    fs::write(dir.path().join("data.jsonl"), rows).unwrap();

    let measured = measure(dir.path(), "bf16x3", &[("threads", json!(1))]);
    if bf16x3("reports_and_journals_name_the_arithmetic").is_none() {
        let (kind, message) = measured.error();
        assert_eq!((measured.code, &*kind), (Some(3), "unsupported"));
        assert!(message.contains("bf16x3") && message.contains("leave out --dtype"), "{message}");
        return;
    }
    let report = measured.report();
    let evaluator = &report["meta"]["evaluator"];
    assert_eq!((&evaluator["kernel"], &evaluator["compute_dtype"]), (&json!("amx-bf16x3"), &json!("bf16x3")));
    let losses =
        |report: &Value, arm: &str| report["evaluation_windows"][arm]["logloss"].as_array().unwrap().clone();

    // After an interruption, by two threads.
    let known: Vec<Value> = losses(&report, "preview")[..4].to_vec();
    let journal = json!({"evaluator": evaluator["version"], "kernel": evaluator["kernel"], "preview": known, "final": []});
    let file = dir.path().join("journal.json");
    fs::write(&file, journal.to_string()).unwrap();
    let resumed = [("journal", json!(file)), ("threads", json!(2))];
    let again = measure(dir.path(), "bf16x3", &resumed).report();
    for arm in ["preview", "final"] {
        assert_eq!(losses(&again, arm), losses(&report, arm), "{arm}");
    }
    assert_eq!(again["metrics"]["resumed"], json!({"preview": 4, "final": 0}));
    let (kind, message) = measure(dir.path(), "float32", &resumed).error();
    assert_eq!(kind, "input");
    assert!(message.contains("with the matrix kernel amx-bf16x3"), "{message}");
}
