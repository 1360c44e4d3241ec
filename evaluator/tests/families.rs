//! Losses of one tiny checkpoint of each family and of each option that changes the arithmetic, computed with PyTorch and transformers by
//! `tests/reference/make_families.py`.
#![allow(clippy::print_stderr, reason = "tests print how close the numbers are")]

use std::fs;
use std::path::{Path, PathBuf};

use invarlock_error::Kind;
use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::measure::Workers;
use invarlock_evaluator::model::Model;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    kind: String,
    #[serde(default)]
    windows: Vec<Vec<u32>>,
    losses: Vec<f64>,
}

/// The directories of checkpoints with expected losses, sorted.
fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let entries = fs::read_dir(&root).expect("the fixtures").flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.join("expected.json").exists()).collect();
    found.sort();
    found
}

fn expected(case: &Path) -> Expected {
    let bytes = fs::read(case.join("expected.json")).expect("readable");
    serde_json::from_slice(&bytes).expect("expected losses")
}

/// The largest relative difference of a window's loss. Each window is measured by itself and unpadded, as it was for the expected value.
fn worst(case: &Path) -> Result<f64, String> {
    let expected = expected(case);
    let checkpoint = Checkpoint::open(case).map_err(|e| e.to_string())?;
    let workers = Workers::new(Some(1)).map_err(|e| e.to_string())?;
    let mut worst = 0f64;
    for (window, truth) in expected.windows.iter().zip(&expected.losses) {
        let model = Model::load(&checkpoint, window.len()).map_err(|e| e.to_string())?;
        if !model.info.unused.is_empty() {
            return Err(format!("unused tensors: {:?}", model.info.unused));
        }
        let loss = workers.losses(&model, &[window], &|_| ())[0];
        let difference = ((loss - truth) / truth).abs();
        worst = if difference <= worst { worst } else { difference };
    }
    Ok(worst)
}

#[test]
fn losses_match_transformers() {
    let cases: Vec<PathBuf> = cases().into_iter().filter(|case| expected(case).kind == "causal").collect();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy();
        match worst(case) {
            Ok(worst) if worst <= 1e-5 => eprintln!("{name:30} worst relative difference {worst:.1e}"),
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn other_kinds_of_models_are_rejected_by_name() {
    let others: Vec<PathBuf> = cases().into_iter().filter(|case| expected(case).kind != "causal").collect();
    assert!(!others.is_empty());
    for case in others {
        let checkpoint = Checkpoint::open(&case).expect("opened");
        let error = Model::load(&checkpoint, 64).expect_err(&case.display().to_string());
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.message().contains("model_type"), "{error}");
    }
}
