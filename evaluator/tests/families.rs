//! Losses of one tiny checkpoint of each family and of each option that changes the arithmetic, computed with PyTorch and transformers by
//! `tests/reference/make_families.py`.
#![allow(clippy::print_stderr, reason = "tests print how close the numbers are")]

#[path = "common/losses.rs"]
mod losses;

use std::fs;
use std::path::Path;

use invarlock_error::Kind;
use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::measure::Workers;
use invarlock_evaluator::model::{Example, Model};
use serde_json::{Value, json};

#[test]
fn losses_match_transformers() {
    losses::check(&losses::cases("families"));
}

/// The number of threads and the grouping of examples do not change the losses.
#[test]
fn threads_do_not_change_losses() {
    for case in losses::cases("families") {
        let expected = losses::expected(&case);
        if expected.kind == "causal" {
            continue;
        }
        let checkpoint = Checkpoint::open(&case).expect("opened");
        let model = Model::load(&checkpoint, 64).expect("loaded");
        // Several groups.
        let examples: Vec<Example<'_>> = expected.examples().into_iter().cycle().take(40).collect();
        let bits = |threads| -> Vec<u64> {
            let losses = Workers::new(Some(threads)).expect("started").losses(&model, &examples, &|_| ());
            losses.into_iter().map(f64::to_bits).collect()
        };
        let one = bits(1);
        for threads in [2, 4] {
            assert_eq!(bits(threads), one, "{}: {threads} threads", case.display());
        }
        for (bits, truth) in one.iter().zip(expected.losses.iter().cycle()) {
            let loss = f64::from_bits(*bits);
            assert!(((loss - truth) / truth).abs() <= 1e-5, "{}: {loss} {truth}", case.display());
        }
    }
}

/// Writes the checkpoint of a case with another configuration.
fn with_config(case: &str, dir: &Path, change: impl Fn(&mut Value)) {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families").join(case);
    fs::copy(case.join("model.safetensors"), dir.join("model.safetensors")).expect("copied");
    let mut config =
        serde_json::from_slice(&fs::read(case.join("config.json")).expect("readable")).expect("JSON");
    change(&mut config);
    fs::write(dir.join("config.json"), config.to_string()).expect("written");
}

#[track_caller]
fn assert_rejected(dir: &Path, words: &[&str]) {
    let error = Model::load(&Checkpoint::open(dir).expect("opened"), 64).expect_err("rejected");
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
}

#[test]
fn similar_models_are_rejected_by_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (case, others) in [
        ("bert", &["deberta", "deberta-v2", "mpnet", "nomic_bert", "xlm-roberta-xl"][..]),
        ("bart", &["mbart", "pegasus", "marian", "blenderbot"]),
        ("t5", &["umt5", "longt5"]),
    ] {
        for other in others {
            with_config(case, dir.path(), |config| config["model_type"] = json!(other));
            assert_rejected(dir.path(), &["model_type", &format!("{other:?}")]);
        }
    }
}

/// A model with images without a case is not measured as if it were its text model.
#[test]
fn models_with_images_are_measured_only_where_a_case_exists() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    with_config("llava", dir.path(), |config| config["model_type"] = json!("paligemma"));
    assert_rejected(dir.path(), &["paligemma"]);
}
