//! Losses of the reference cases in `tests/reference/` of the workspace, computed with PyTorch and transformers.
#![allow(clippy::print_stderr, reason = "tests print how close the numbers are")]

use invarlock_error::Kind;
use std::fs;
use std::path::PathBuf;

use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::measure::Workers;
use invarlock_evaluator::model::{Example, Model};
use serde_json::Value;

/// At least as long as every window of the cases.
const SEQ_LEN: usize = 1024;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/reference")
}

fn directories(root: &PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_dir()).collect();
    found.sort();
    assert!(!found.is_empty(), "no case in {}", root.display());
    found
}

#[test]
fn losses_match_transformers() {
    let cases: Vec<PathBuf> =
        directories(&root()).into_iter().filter(|f| f.join("reference.json").exists()).collect();
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let reference: Value =
            serde_json::from_slice(&fs::read(case.join("reference.json")).expect("readable")).expect("JSON");
        let windows = reference["windows"].as_array().expect("windows");
        let tokens: Vec<Vec<u32>> = windows.iter().map(real_tokens).collect();
        let checkpoint = Checkpoint::open(case).expect(&name);
        let model = Model::load(&checkpoint, SEQ_LEN).expect(&name);
        assert!(model.info.unused.is_empty(), "{name}: unused {:?}", model.info.unused);
        let views: Vec<Example<'_>> = tokens.iter().map(|tokens| Example::causal(tokens)).collect();

        // The number of threads and the grouping of windows do not change the losses.
        let losses = |threads, views: &[Example<'_>]| {
            Workers::new(Some(threads)).expect("started").losses(&model, views, &|_| ())
        };
        let found = losses(1, &views);
        for threads in [2, 3] {
            let again: Vec<u64> = losses(threads, &views).iter().map(|l| l.to_bits()).collect();
            assert_eq!(
                again,
                found.iter().map(|l| l.to_bits()).collect::<Vec<_>>(),
                "{name}: {threads} threads"
            );
        }
        let alone: Vec<f64> = views.iter().flat_map(|v| losses(1, &[*v])).collect();

        let mut worst = 0f64;
        for (i, window) in windows.iter().enumerate() {
            let truth = window["loss_f64"].as_f64().or_else(|| window["loss"].as_f64()).expect("a loss");
            for loss in [found[i], alone[i]] {
                let error = ((loss - truth) / truth).abs();
                // False for a NaN.
                let good = error <= 1e-5;
                if !good {
                    wrong.push(format!("{name} window {i}: {loss} instead of {truth} ({error:.1e})"));
                }
                worst = worst.max(error);
            }
        }
        eprintln!("{name:28} {} windows, worst relative difference {worst:.1e}", windows.len());
    }
    assert!(wrong.is_empty(), "{} losses differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn real_tokens(window: &Value) -> Vec<u32> {
    let ids = window["input_ids"].as_array().expect("ids").iter();
    let mask = window["attention_mask"].as_array().expect("mask").iter();
    let real = ids.zip(mask).take_while(|(_, m)| m.as_u64() == Some(1));
    real.map(|(id, _)| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn rejects_unsupported_options_by_name() {
    let cases = directories(&root().join("refused"));
    for case in cases {
        let config = fs::read(case.join("config.json")).expect("readable");
        let expected = fs::read_to_string(case.join("expect.txt")).expect("readable");
        // Rejected because of the configuration, before any weight is read.
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("config.json"), config).expect("written");
        let empty = [&2u64.to_le_bytes()[..], b"{}"].concat();
        fs::write(directory.path().join("model.safetensors"), empty).expect("written");
        let checkpoint = Checkpoint::open(directory.path()).expect("opened");
        let error = Model::load(&checkpoint, SEQ_LEN).expect_err(&case.display().to_string());
        assert!(error.kind() == Kind::Unsupported, "{}: {error:?}", case.display());
        for word in expected.lines() {
            assert!(error.to_string().contains(word), "{}: {error} lacks {word:?}", case.display());
        }
    }
}
