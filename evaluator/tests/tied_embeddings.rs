//! Checkpoints whose configuration ties the output projection to the token embedding, with both, one or different tensors.

mod common;

use std::fs;
use std::path::Path;

use common::Tiny;
use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::measure::Workers;
use invarlock_evaluator::model::{Example, Model};
use serde_json::json;

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Loss of a window, and whether the invariants guard sees one matrix.
fn measure(directory: &Path) -> (f64, Option<bool>) {
    let checkpoint = Checkpoint::open(directory).expect("opened");
    let model = Model::load(&checkpoint, 8).expect("loaded");
    assert!(model.info.unused.is_empty(), "{:?}", model.info.unused);
    let losses =
        Workers::new(Some(1)).expect("started").losses(&model, &[Example::causal(&[1, 5, 2, 9])], &|_| ());
    (losses[0], model.info.checks.weight_tying)
}

fn tied(change: impl Fn(&mut Tiny)) -> (f64, Option<bool>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut tiny = Tiny::new();
    tiny.config["tie_word_embeddings"] = json!(true);
    change(&mut tiny);
    tiny.write(directory.path());
    measure(directory.path())
}

fn without(tiny: &mut Tiny, name: &str) {
    tiny.tensors.retain(|tensor| tensor.0 != name);
}

#[test]
fn one_tensor_or_two_equal_ones_are_the_same_model() {
    let embedding_only = tied(|tiny| without(tiny, HEAD));
    assert_eq!(embedding_only.1, Some(true));
    let equal = |tiny: &mut Tiny| tiny.tensor(HEAD).2 = tiny.tensor(EMBEDDING).2.clone();
    assert_eq!(tied(equal), embedding_only);
    let head_only = |tiny: &mut Tiny| {
        equal(tiny);
        without(tiny, EMBEDDING);
    };
    assert_eq!(tied(head_only), embedding_only);
}

#[test]
fn two_different_tensors_are_both_used() {
    let (loss, tying) = tied(|_| ());
    assert_eq!(tying, Some(false));
    assert_eq!((loss, tying), tied(|tiny| tiny.config["tie_word_embeddings"] = json!(false)));
    assert_ne!(loss, tied(|tiny| without(tiny, HEAD)).0);
}

#[test]
fn an_index_may_name_an_absent_head() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut tiny = Tiny::new();
    tiny.config["tie_word_embeddings"] = json!(true);
    without(&mut tiny, HEAD);
    tiny.write(directory.path());
    let truth = measure(directory.path());
    fs::rename(directory.path().join("model.safetensors"), directory.path().join("shard.safetensors"))
        .expect("renamed");
    let names = tiny.tensors.iter().map(|tensor| tensor.0.as_str()).chain([HEAD]);
    let map: serde_json::Map<String, serde_json::Value> =
        names.map(|name| (name.to_owned(), json!("shard.safetensors"))).collect();
    let index = json!({"weight_map": map}).to_string();
    fs::write(directory.path().join("model.safetensors.index.json"), index).expect("written");
    assert_eq!(measure(directory.path()), truth);
}
