//! Defaults and rejections of configurations. That the options have the right effect is tested against transformers in `tests/families.rs`.

use super::{FAMILIES, OPTIONS};
use crate::checkpoint::Config;
use crate::math::activation::Activation;
use crate::model::spec::{FeedForward, Gating, Transformer};
use invarlock_error::{Kind, Result};
use invarlock_evidence::format::objective::Objective;
use serde_json::{Value, json};

/// The description that the family in `model_type` (Llama by default) makes of a small configuration with changes.
fn read(changes: Value) -> Result<Transformer> {
    let mut members = json!({
        "model_type": "llama", "vocab_size": 10, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    });
    let members = members.as_object_mut().expect("an object");
    members.extend(changes.as_object().expect("an object").clone());
    let model_type = members["model_type"].as_str().expect("a name").to_owned();
    let config = Config::from_members(members.clone());
    let (_, family) = FAMILIES.iter().find(|(name, _)| *name == model_type).expect("a family");
    let decoder = family(&config, 16)?;
    config.reject_unread(OPTIONS)?;
    Ok(decoder)
}

fn windows(changes: Value) -> Vec<Option<usize>> {
    let decoder = read(changes).expect("read");
    decoder.layers.iter().map(|layer| layer.attention.module.attention.sliding_window).collect()
}

#[track_caller]
fn assert_rejected(kind: Kind, changes: Value, words: &[&str]) {
    let error = read(changes).expect_err("rejected");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
}

#[test]
fn fills_in_defaults() {
    let llama = read(json!({"num_key_value_heads": null})).expect("read");
    let layer = &llama.layers[0];
    let attention = &layer.attention.module;
    assert_eq!((attention.attention.num_kv_heads, attention.attention.head_dim), (4, 8));
    assert!(attention.qkv.iter().all(|linear| linear.bias.is_none()));
    assert!(!llama.head.tied);
    let FeedForward::Mlp(mlp) = &layer.feed_forward.module else { panic!("experts") };
    assert_eq!(mlp.gating, Gating::Halves(Activation::Silu));
    let wide = read(json!({"head_dim": 12})).expect("read");
    assert_eq!(wide.layers[0].attention.module.output.inputs, 48);
    let qwen2 = read(json!({"model_type": "qwen2"})).expect("read");
    let attention = &qwen2.layers[0].attention.module;
    assert!(attention.qkv[0].bias.is_some() && attention.output.bias.is_none());
}

#[test]
fn reads_sliding_windows() {
    assert_eq!(windows(json!({})), [None; 4]);
    assert_eq!(windows(json!({"model_type": "mistral"})), [Some(4096); 4]);
    assert_eq!(windows(json!({"model_type": "mistral", "sliding_window": null})), [None; 4]);
    let (s, f) = ("sliding_attention", "full_attention");
    let on = json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 7, "max_window_layers": 1});
    assert_eq!(windows(on.clone()), [None, Some(7), Some(7), Some(7)]);
    let mut typed = on;
    typed["layer_types"] = json!([s, f, f, s]);
    assert_eq!(windows(typed.clone()), [Some(7), None, None, Some(7)]);
    typed["use_sliding_window"] = json!(false);
    assert_rejected(Kind::Input, typed.clone(), &["layer_types", "window"]);
    typed["layer_types"] = json!([f]);
    assert_rejected(Kind::Input, typed, &["layer_types", "list of 4"]);
    let chunked = json!({"layer_types": [f, f, f, "chunked_attention"]});
    assert_rejected(Kind::Unsupported, chunked, &["layer_types", "chunked_attention"]);
    assert_rejected(Kind::Unsupported, json!({"layer_types": [f, f, f, s]}), &["layer_types", "sliding"]);
}

/// A small configuration of another family.
fn read_whole(members: Value) -> Result<Transformer> {
    let model_type = members["model_type"].as_str().expect("a name");
    let (_, family) = FAMILIES.iter().find(|(name, _)| *name == model_type).expect("a family");
    let config = Config::from_members(members.as_object().expect("an object").clone());
    let model = family(&config, 16)?;
    config.reject_unread(OPTIONS)?;
    Ok(model)
}

fn with(mut members: Value, key: &str, value: Value) -> Value {
    members[key] = value;
    members
}

fn bert(model_type: &str) -> Value {
    json!({
        "model_type": model_type, "vocab_size": 10, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 4, "max_position_embeddings": 20, "position_embedding_type": "absolute", "is_decoder": false,
    })
}

fn t5() -> Value {
    json!({
        "model_type": "t5", "vocab_size": 10, "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_heads": 4,
        "decoder_start_token_id": 0, "is_encoder_decoder": true,
    })
}

#[test]
fn objectives_follow_from_the_families() {
    let objective = |members| read_whole(members).expect("read").objective();
    assert_eq!(read(json!({})).expect("read").objective(), Objective::Causal);
    for masked in ["bert", "roberta", "electra", "modernbert"] {
        assert_eq!(objective(bert(masked)), Objective::Masked);
    }
    assert_eq!(objective(t5()), Objective::Seq2Seq);
}

#[test]
fn roberta_counts_positions_after_padding() {
    let positions = |members| read_whole(members).expect("read").max_positions;
    assert_eq!(positions(bert("bert")), Some(20));
    assert_eq!(positions(bert("roberta")), Some(18));
    assert_eq!(positions(with(bert("roberta"), "pad_token_id", json!(4))), Some(15));
    let small = with(bert("roberta"), "max_position_embeddings", json!(2));
    let error = read_whole(small).expect_err("rejected");
    assert!(error.message().contains("`max_position_embeddings` 2"), "{error}");
}

#[test]
fn modernbert_layers_alternate() {
    let windows = |members| -> Vec<Option<usize>> {
        let model = read_whole(members).expect("read");
        model.layers.iter().map(|layer| layer.attention.module.attention.sliding_window).collect()
    };
    assert_eq!(windows(bert("modernbert")), [None, Some(65), Some(65), None]);
    let changed = with(bert("modernbert"), "global_attn_every_n_layers", json!(2));
    assert_eq!(windows(with(changed, "local_attention", json!(10))), [None, Some(6), None, Some(6)]);
}

#[test]
fn t5_scales_its_output_unless_it_is_told_otherwise() {
    let scale = |members| read_whole(members).expect("read").head.scale;
    let scaled = 32f32.powf(-0.5);
    assert_eq!(scale(t5()), scaled);
    assert_eq!(scale(with(t5(), "tie_word_embeddings", json!(false))), 1.0);
    // As transformers 5 writes the configuration of a T5 1.1.
    let written = with(t5(), "tie_word_embeddings", json!(true));
    assert_eq!(scale(with(written, "scale_decoder_outputs", json!(false))), 1.0);
}

#[test]
fn options_of_encoders_are_rejected_by_name() {
    for (members, kind, words) in [
        (
            with(bert("bert"), "position_embedding_type", json!("relative_key")),
            Kind::Unsupported,
            "relative_key",
        ),
        (with(bert("bert"), "is_decoder", json!(true)), Kind::Unsupported, "is_decoder"),
        (with(bert("bert"), "pruned_heads", json!({"0": [1]})), Kind::Unsupported, "pruned_heads"),
        (with(bert("bert"), "rope_scaling", json!({"factor": 2})), Kind::Unsupported, "rope_scaling"),
        (with(bert("roberta"), "pad_token_id", json!(10)), Kind::Input, "pad_token_id"),
        (with(bert("modernbert"), "rope_scaling", json!({"factor": 2})), Kind::Unsupported, "rope_scaling"),
        (with(t5(), "feed_forward_proj", json!("gated-xielu")), Kind::Unsupported, "gated-xielu"),
        (with(t5(), "decoder_start_token_id", json!(null)), Kind::Input, "decoder_start_token_id"),
        (
            with(t5(), "relative_attention_num_buckets", json!(3)),
            Kind::Input,
            "relative_attention_num_buckets",
        ),
        (
            with(t5(), "relative_attention_max_distance", json!(31)),
            Kind::Input,
            "relative_attention_max_distance",
        ),
        (with(t5(), "scale_embedding", json!(true)), Kind::Unsupported, "scale_embedding"),
    ] {
        let error = read_whole(members).expect_err(words);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(words), "{error}");
    }
}

#[test]
fn rejects_impossible_sizes() {
    for bad in [
        json!({"num_key_value_heads": 3}),
        json!({"hidden_size": 34}),
        json!({"head_dim": 7}),
        json!({"num_hidden_layers": 2000}),
        json!({"vocab_size": -1}),
        json!({"rope_theta": 0}),
        json!({"rms_norm_eps": "small"}),
        json!({"partial_rotary_factor": 1.5}),
        json!({"rope_scaling": {"factor": 2.0}}),
        json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}, "max_position_embeddings": 64}),
        json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        json!({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3}),
        json!({"model_type": "mixtral", "num_hidden_layers": 1000, "num_local_experts": 4000, "num_experts_per_tok": 2}),
        json!({"model_type": "qwen2", "num_key_value_heads": null, "max_window_layers": 0.5}),
    ] {
        assert_rejected(Kind::Input, bad, &[]);
    }
}

#[test]
fn options_of_other_families_are_rejected_by_name() {
    assert_rejected(Kind::Unsupported, json!({"hidden_act": "xielu"}), &["hidden_act", "xielu"]);
    for option in OPTIONS {
        // Members that Llama reads.
        if ["attention_bias", "mlp_bias", "layer_types", "rope_parameters", "rope_scaling"].contains(option) {
            continue;
        }
        let mut changes = json!({});
        changes[option] = json!(2);
        assert_rejected(Kind::Unsupported, changes, &[option]);
    }
    assert_rejected(
        Kind::Unsupported,
        json!({"model_type": "mistral", "attention_bias": true}),
        &["attention_bias"],
    );
    let nested = json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}});
    assert_rejected(Kind::Unsupported, nested, &["rope_parameters", "differ by layer"]);
}
