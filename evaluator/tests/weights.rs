//! Losses of one tiny checkpoint of each format of stored weights, computed with PyTorch by `tests/reference/make_weights.py` on the numbers
//! that the stored weights mean.
#![allow(clippy::print_stderr, reason = "tests print how close the numbers are")]

use std::fs;

use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::model::Model;
use invarlock_evaluator::tokenizer::Tokenizer;
use serde_json::Value;

#[path = "common/losses.rs"]
mod losses;

#[test]
fn losses_match_the_stored_numbers() {
    let cases = losses::cases("weights");
    assert!(cases.iter().all(|case| losses::expected(case).kind == "causal"));
    losses::check(&cases);
}

#[test]
fn tokenizers_in_gguf_files_match_transformers() {
    let mut tokenized = 0;
    for case in losses::cases("weights") {
        let expected = fs::read(case.join("expected.json")).expect("readable");
        let expected: Value = serde_json::from_slice(&expected).expect("JSON");
        let Some(texts) = expected.get("texts").and_then(Value::as_array) else { continue };
        let checkpoint = Checkpoint::open(&case).expect("opened");
        let model = Model::load(&checkpoint, 512).expect("loaded");
        let tokenizer = Tokenizer::open(&checkpoint, &model.info, 512).expect("a tokenizer");
        for (text, ids) in texts.iter().zip(expected["token_ids"].as_array().expect("token ids")) {
            let found = tokenizer
                .as_ref()
                .expect("a tokenizer")
                .encode(text.as_str().expect("a text"))
                .expect("encoded");
            assert_eq!(serde_json::json!(found), *ids, "{}: {text}", case.display());
            tokenized += 1;
        }
    }
    assert!(tokenized > 0);
}
