//! Checkpoints of masked and sequence-to-sequence models as they are stored and quantised in practice, and those that lack a part.

use invarlock_error::Kind;
use invarlock_evaluator::checkpoint::Checkpoint;
use invarlock_evaluator::measure::Workers;
use invarlock_evaluator::model::{Example, Model};
use safetensors::Dtype;
use serde_json::json;

#[path = "common/changed.rs"]
mod changed;

use changed::Changed;

const TOKENS: [u32; 6] = [9, 4, 31, 77, 4, 12];
const LABELS: [i64; 6] = [-100, 8, -100, 77, 60, -100];

/// The loss of one example. Every tensor must be known.
#[track_caller]
fn loss(checkpoint: &Changed) -> f64 {
    let directory = tempfile::tempdir().expect("a temporary directory");
    checkpoint.write(directory.path());
    let opened = Checkpoint::open(directory.path()).expect("opened");
    let model = Model::load(&opened, TOKENS.len()).expect("loaded");
    assert!(model.info.unused.is_empty(), "{:?}", model.info.unused);
    let example = Example { tokens: &TOKENS, labels: Some(&LABELS) };
    let loss = Workers::new(Some(1)).expect("started").losses(&model, &[example], &|_| ())[0];
    assert!(loss.is_finite());
    loss
}

fn changed(name: &str, change: impl FnOnce(&mut Changed)) -> Changed {
    let mut checkpoint = Changed::open("families", name);
    change(&mut checkpoint);
    checkpoint
}

#[track_caller]
fn assert_rejected(checkpoint: &Changed, words: &[&str]) {
    let error = checkpoint.load().expect_err("rejected");
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
}

#[test]
fn checkpoints_without_a_part_are_rejected_with_their_architecture() {
    for (name, architecture, part, tensor) in [
        ("bert", "BertForSequenceClassification", "cls.", "cls.predictions.transform.dense.weight"),
        ("roberta", "RobertaModel", "lm_head.", "lm_head.dense.weight"),
        ("distilbert", "DistilBertModel", "vocab_", "vocab_transform.weight"),
        ("electra", "ElectraForPreTraining", "generator_predictions.", "generator_predictions.dense.weight"),
        ("modernbert", "ModernBertModel", "head.", "head.dense.weight"),
        ("t5", "T5EncoderModel", "decoder.", "decoder.block.0.layer.0.SelfAttention.o.weight"),
        ("bart", "BartForCausalLM", "model.decoder.", "decoder.layers.0.self_attn.out_proj.weight"),
    ] {
        let checkpoint = changed(name, |checkpoint| {
            checkpoint.config["architectures"] = json!([architecture]);
            checkpoint.tensors.retain(|tensor, _| !tensor.starts_with(part));
        });
        assert_rejected(&checkpoint, &[architecture, tensor]);
    }
}

/// The names of the bare model, which has no head.
#[test]
fn bare_models_with_a_tied_head_are_measured() {
    let bare = changed("bart-unscaled", |checkpoint| {
        checkpoint.tensors.remove("final_logits_bias");
        let tensors = std::mem::take(&mut checkpoint.tensors);
        let bare = |name: String| name.strip_prefix("model.").map(str::to_owned).unwrap_or(name);
        checkpoint.tensors = tensors.into_iter().map(|(name, tensor)| (bare(name), tensor)).collect();
    });
    assert_eq!(loss(&bare).to_bits(), loss(&Changed::open("families", "bart-unscaled")).to_bits());
}

/// Older files contain the token embedding, and the bias of the head, more than once.
#[test]
fn copies_of_tied_tensors_change_nothing() {
    for (name, tensor, copies) in [
        ("t5", "shared.weight", &["encoder.embed_tokens.weight", "lm_head.weight"][..]),
        ("bart", "model.shared.weight", &["model.decoder.embed_tokens.weight", "lm_head.weight"]),
        ("bert", "bert.embeddings.word_embeddings.weight", &["cls.predictions.decoder.weight"]),
        ("bert", "cls.predictions.bias", &["cls.predictions.decoder.bias"]),
    ] {
        let truth = loss(&Changed::open("families", name)).to_bits();
        let mut checkpoint = Changed::open("families", name);
        let stored = checkpoint.tensors[tensor].clone();
        for copy in copies {
            checkpoint.tensors.insert((*copy).to_owned(), stored.clone());
        }
        assert_eq!(loss(&checkpoint).to_bits(), truth, "{name} with {copies:?}");
        if !tensor.ends_with("bias") {
            checkpoint.tensors.remove(tensor);
            assert_eq!(loss(&checkpoint).to_bits(), truth, "{name} with {copies:?} only");
        }
    }
}

#[test]
fn different_embeddings_of_source_and_target_are_rejected() {
    let checkpoint = changed("t5", |checkpoint| {
        let mut stored = checkpoint.tensors["shared.weight"].clone();
        stored.2[0] ^= 1;
        checkpoint.tensors.insert("encoder.embed_tokens.weight".to_owned(), stored);
    });
    assert_rejected(&checkpoint, &["encoder.embed_tokens.weight", "shared.weight"]);
}

/// A different bias of the projection is used, as a different projection is.
#[test]
fn different_head_biases_are_not_tied() {
    let truth = loss(&Changed::open("families", "bert"));
    let checkpoint = changed("bert", |checkpoint| {
        let mut stored = checkpoint.tensors["cls.predictions.bias"].clone();
        stored.2[1] ^= 0x40;
        checkpoint.tensors.insert("cls.predictions.decoder.bias".to_owned(), stored);
    });
    assert!((loss(&checkpoint) - truth).abs() > 1e-3);
}

/// The int8 format of compressed-tensors gives the losses of the numbers that it means.
#[test]
fn quantised_encoders_give_the_losses_of_their_weights() {
    let linear = |name: &str| {
        name.ends_with("dense.weight")
            || ["query.weight", "key.weight", "value.weight"].iter().any(|end| name.ends_with(end))
    };
    let mut plain = Changed::open("families", "bert-untied");
    let mut quantised = Changed::open("families", "bert-untied");
    for (name, (_, shape, bytes)) in Changed::open("families", "bert-untied").tensors {
        if !linear(&name) {
            continue;
        }
        let weights: Vec<f32> =
            bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect();
        let (mut integers, mut scales, mut meant) = (Vec::new(), Vec::new(), Vec::new());
        for row in weights.chunks_exact(shape[1]) {
            let scale = row.iter().fold(0f32, |largest, weight| largest.max(weight.abs())) / 127.0;
            scales.extend(scale.to_le_bytes());
            for weight in row {
                let integer = (weight / scale).round() as i8;
                integers.push(integer.to_le_bytes()[0]);
                meant.extend((f32::from(integer) * scale).to_le_bytes());
            }
        }
        let scale = name.replace(".weight", ".weight_scale");
        quantised.tensors.insert(scale, (Dtype::F32, vec![shape[0], 1], scales));
        quantised.tensors.insert(name.clone(), (Dtype::I8, shape.clone(), integers));
        plain.tensors.insert(name, (Dtype::F32, shape, meant));
    }
    let weights = json!({"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": true});
    quantised.config["quantization_config"] = json!({
        "quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
        "ignore": ["cls.predictions.decoder"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    });
    let (found, truth) = (loss(&quantised), loss(&plain));
    assert!(((found - truth) / truth).abs() < 1e-6, "{found} {truth}");
    assert!((truth - loss(&Changed::open("families", "bert-untied"))).abs() > 1e-4);
}
