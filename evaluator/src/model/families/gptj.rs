//! GPT-J.

use std::sync::Arc;

use super::common::{per_head, plain_mlp};
use crate::checkpoint::Config;
use crate::limits;
use crate::math::rotary::{Pairing, Rotary};
use crate::model::attention::Attention;
use crate::model::profile::Profile;
use crate::model::rope::Rope;
use crate::model::spec::{
    Embedding, FeedForward, Gating, Head, HeadBias, Layer, Linear, Norm, NormKind, SelfAttention, Transformer,
};
use invarlock_error::Result;

/// Parallel layers with one normalisation; the first `rotary_dim` elements of a head are rotated in adjacent pairs.
pub fn read(config: &Config, seq_len: usize) -> Result<Transformer> {
    let hidden_size = config.required_size("n_embd", limits::WIDTH)?;
    let num_heads = config.required_size("n_head", limits::HEADS)?;
    let num_layers = config.required_size("n_layer", limits::LAYERS)?;
    let width = config.size("n_inner", limits::WIDTH)?.unwrap_or(4 * hidden_size);
    let epsilon = config.positive("layer_norm_epsilon", 1e-5)? as f32;
    let head_dim = per_head(config, ("n_embd", hidden_size), ("n_head", num_heads))?;
    let gating = Gating::None(config.activation("activation_function", "gelu_new")?);
    let rotary_dim = config.size("rotary_dim", head_dim)?.unwrap_or(64);
    let rope = Rope { partial: rotary_dim as f64 / head_dim as f64, ..Rope::new(head_dim, seq_len) };
    let rotary = Arc::new(Rotary::new(rope.read(config)?, Pairing::Adjacent, seq_len));

    let layer = |i: usize| {
        let linear = |module: &str, inputs, outputs, bias| {
            Linear::new(&format!("h.{i}.{module}"), inputs, outputs, bias)
        };
        let projection = |name: &str| linear(name, hidden_size, hidden_size, false);
        let mut attention = SelfAttention::new(
            Attention::new(num_heads, num_heads, head_dim),
            ["attn.q_proj", "attn.k_proj", "attn.v_proj"].map(projection).into(),
            projection("attn.out_proj"),
        );
        attention.rotary = Some(rotary.clone());
        let mlp = plain_mlp(
            linear("mlp.fc_in", hidden_size, width, true),
            gating,
            linear("mlp.fc_out", width, hidden_size, true),
        );
        let norm = Norm::new(format!("h.{i}.ln_1"), NormKind::Layer, epsilon);
        Layer::parallel(norm, attention, FeedForward::Mlp(mlp))
    };
    Ok(Transformer {
        profile: Profile::Gpt2,
        prefix: "transformer.",
        vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
        source: None,
        hidden_size,
        max_positions: config.size("n_positions", limits::POSITIONS)?,
        embedding: Embedding::of("wte", hidden_size),
        layers: (0..num_layers).map(layer).collect(),
        norm: Some(Norm::new("ln_f", NormKind::Layer, epsilon)),
        head: Head { bias: HeadBias::Module, ..Head::new(config.flag("tie_word_embeddings", false)?) },
    })
}
