//! Losses of the reference cases (`tests/reference/` of the workspace), made with PyTorch and transformers.
#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

use invarlock_error::Kind;
use std::fs;
use std::path::PathBuf;

use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::measure::Workers;
use invarlock_evaluator::model::Model;
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/reference")
}

fn folders(root: &PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    folders
}

#[test]
fn losses_agree_with_transformers() {
    let cases: Vec<PathBuf> =
        folders(&root()).into_iter().filter(|f| f.join("reference.json").exists()).collect();
    if cases.is_empty() {
        eprintln!("SKIPPED losses_agree_with_transformers: no case in {}", root().display());
        return;
    }
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let reference: Value =
            serde_json::from_slice(&fs::read(case.join("reference.json")).expect("readable")).expect("JSON");
        let windows = reference["windows"].as_array().expect("windows");
        let tokens: Vec<Vec<u32>> = windows.iter().map(real_tokens).collect();
        let checkpoint = Checkpoint::open(case).expect(&name);
        let model = Model::load(&checkpoint).expect(&name);
        assert!(model.facts.unused.is_empty(), "{name}: unused {:?}", model.facts.unused);
        let views: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();

        // Whatever the number of threads, and whichever windows go together.
        let losses = |threads, views: &[&[u32]]| {
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
                // Written so that a NaN counts as wrong.
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
fn what_is_not_implemented_is_refused_by_name() {
    let cases = folders(&root().join("refused"));
    if cases.is_empty() {
        eprintln!(
            "SKIPPED what_is_not_implemented_is_refused_by_name: no case in {}/refused",
            root().display()
        );
        return;
    }
    for case in cases {
        let config = fs::read(case.join("config.json")).expect("readable");
        let expected = fs::read_to_string(case.join("expect.txt")).expect("readable");
        // Refused for what the configuration says, before any weight is looked for.
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("config.json"), config).expect("written");
        let empty = [&2u64.to_le_bytes()[..], b"{}"].concat();
        fs::write(directory.path().join("model.safetensors"), empty).expect("written");
        let checkpoint = Checkpoint::open(directory.path()).expect("opened");
        let error = Model::load(&checkpoint).expect_err(&case.display().to_string());
        assert!(error.kind() == Kind::Unsupported, "{}: {error:?}", case.display());
        for word in expected.lines() {
            assert!(error.to_string().contains(word), "{}: {error} lacks {word:?}", case.display());
        }
    }
}
