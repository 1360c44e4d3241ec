//! ModernBERT.

use std::sync::Arc;

use super::common::{per_head, windows};
use crate::checkpoint::Config;
use crate::limits;
use crate::math::rotary::{Frequencies, Pairing, Rotary};
use crate::model::attention::{Attention, Mask};
use crate::model::profile::Profile;
use crate::model::rope::Rope;
use crate::model::spec::{
    Embedding, FeedForward, Gating, Head, HeadBias, Layer, Linear, Mlp, Norm, NormKind, SelfAttention,
    Sublayer, Transform, Transformer,
};
use invarlock_error::Result;

/// Normalised inputs, rotary positions, and layers that see neighbours only, whose positions have a base of their own.
pub fn read(config: &Config, seq_len: usize) -> Result<Transformer> {
    let size = config.required_size("hidden_size", limits::WIDTH)?;
    let width = config.required_size("intermediate_size", limits::WIDTH)?;
    let num_layers = config.required_size("num_hidden_layers", limits::LAYERS)?;
    let num_heads = config.required_size("num_attention_heads", limits::HEADS)?;
    let epsilon = config.positive("norm_eps", 1e-5)? as f32;
    let activation = config.activation("hidden_activation", "gelu")?;
    let attention_bias = config.flag("attention_bias", false)?;
    let mlp_bias = config.flag("mlp_bias", false)?;
    let kind = if config.flag("norm_bias", false)? { NormKind::Layer } else { NormKind::LayerWeight };
    let head_dim = per_head(config, ("hidden_size", size), ("num_attention_heads", num_heads))?;
    let rotary = |layer_type, key, theta| -> Result<Arc<Rotary>> {
        let frequencies = rope(config, head_dim, seq_len, layer_type, key, theta)?;
        Ok(Arc::new(Rotary::new(frequencies, Pairing::Halves, seq_len)))
    };
    let global = rotary("full_attention", "global_rope_theta", 160_000.0)?;
    let local = rotary("sliding_attention", "local_rope_theta", 10_000.0)?;

    let norm = |module: String| Norm::new(module, kind, epsilon);
    let layer = |(i, window): (usize, Option<usize>)| {
        let name = |module: &str| format!("layers.{i}.{module}");
        let linear = |module: &str, inputs, outputs, bias| Linear::new(&name(module), inputs, outputs, bias);
        let attention = Attention {
            mask: Mask::Full,
            sliding_window: window,
            ..Attention::new(num_heads, num_heads, head_dim)
        };
        let mut attention = SelfAttention::new(
            attention,
            vec![linear("attn.Wqkv", size, 3 * size, attention_bias)],
            linear("attn.Wo", size, size, attention_bias),
        );
        attention.rotary = Some(if window.is_some() { local.clone() } else { global.clone() });
        let mlp = Mlp {
            input: vec![linear("mlp.Wi", size, 2 * width, mlp_bias)],
            gating: Gating::Halves(activation),
            output: linear("mlp.Wo", width, size, mlp_bias),
        };
        // The embeddings of the first layer are normalised already.
        let before = (i > 0).then(|| norm(name("attn_norm")));
        Layer::of(
            Sublayer { module: attention, before, output: None, sum: None },
            Sublayer::normed(norm(name("mlp_norm")), FeedForward::Mlp(mlp)),
        )
    };
    Ok(Transformer {
        profile: Profile::Bert,
        prefix: "model.",
        vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
        source: None,
        hidden_size: size,
        // Rotary angles exist for any position; the window length is the user's choice.
        max_positions: None,
        embedding: Embedding {
            norm: Some(norm("embeddings.norm".to_owned())),
            ..Embedding::of("embeddings.tok_embeddings", size)
        },
        layers: attention_windows(config, num_layers)?.into_iter().enumerate().map(layer).collect(),
        norm: Some(norm("final_norm".to_owned())),
        head: Head {
            module: "decoder",
            bias: if config.flag("decoder_bias", true)? { HeadBias::Module } else { HeadBias::None },
            transform: Some(Transform {
                dense: Linear::new("head.dense", size, size, config.flag("classifier_bias", false)?),
                activation: config.activation("classifier_activation", "gelu")?,
                norm: norm("head.norm".to_owned()),
            }),
            ..Head::new(config.flag("tie_word_embeddings", true)?)
        },
    })
}

/// The window of each layer. `local_attention` counts the positions on both sides, without the query's own.
fn attention_windows(config: &Config, num_layers: usize) -> Result<Vec<Option<usize>>> {
    let local = config.size("local_attention", limits::POSITIONS)?.unwrap_or(128);
    let every = config.size("global_attn_every_n_layers", limits::LAYERS)?.unwrap_or(3);
    windows(config, num_layers, Some(local / 2 + 1), |i| i % every != 0)
}

/// Rotary frequencies of one kind of layers. Older configurations name the base of each kind.
fn rope(
    config: &Config,
    head_dim: usize,
    seq_len: usize,
    layer_type: &str,
    key: &str,
    theta: f64,
) -> Result<Frequencies> {
    let theta = config.positive(key, theta)?;
    let rope = Rope { layer_type: Some(layer_type), theta, ..Rope::new(head_dim, seq_len) };
    match config.object("rope_parameters")? {
        Some(_) => rope.read(config),
        None => Ok(rope.with_theta(theta)),
    }
}
