//! Losses of one tiny checkpoint of each family and of each option that changes the arithmetic, computed with PyTorch and transformers by
//! `tests/reference/make_families.py`.
#![allow(clippy::print_stderr, reason = "tests print how close the numbers are")]

#[path = "common/losses.rs"]
mod losses;

use std::fs;
use std::path::PathBuf;

use invarlock_error::Kind;
use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::model::Model;

/// The cases of decoders, and the others.
fn cases() -> (Vec<PathBuf>, Vec<PathBuf>) {
    losses::cases("families").into_iter().partition(|case| losses::expected(case).kind == "causal")
}

#[test]
fn losses_match_transformers() {
    let (causal, _) = cases();
    losses::check(&causal);
}

#[test]
fn other_kinds_of_models_are_rejected_by_name() {
    let (_, others) = cases();
    assert!(!others.is_empty());
    for case in others {
        let checkpoint = Checkpoint::open(&case).expect("opened");
        let error = Model::load(&checkpoint, 64).expect_err(&case.display().to_string());
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.message().contains("model_type"), "{error}");
    }
}

/// A model with images that nobody compared with transformers is not measured as if it were its text model.
#[test]
fn models_with_images_are_measured_only_where_a_case_exists() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let case = cases().0.into_iter().find(|case| case.ends_with("llava")).expect("the case");
    fs::copy(case.join("model.safetensors"), dir.path().join("model.safetensors")).expect("copied");
    let config = fs::read_to_string(case.join("config.json")).expect("readable");
    let config = config.replacen("\"llava\"", "\"paligemma\"", 1);
    fs::write(dir.path().join("config.json"), config).expect("written");
    let error = Model::load(&Checkpoint::open(dir.path()).expect("opened"), 64).expect_err("rejected");
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(error.message().contains("paligemma"), "{error}");
}
