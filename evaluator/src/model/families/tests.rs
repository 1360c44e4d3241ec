//! Defaults and rejections of configurations. That the options have the right effect is tested against transformers in `tests/families.rs`.

use super::{FAMILIES, OPTIONS};
use crate::checkpoint::Config;
use crate::math::activation::Activation;
use crate::model::spec::{FeedForward, Gating, Transformer};
use invarlock_error::{Kind, Result};
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
