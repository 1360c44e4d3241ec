//! GPT-NeoX, the architecture of Pythia.

use std::sync::Arc;

use super::common::{per_head, plain_mlp};
use crate::checkpoint::Config;
use crate::limits;
use crate::math::rotary::{Pairing, Rotary};
use crate::model::attention::{Attention, Columns};
use crate::model::profile::Profile;
use crate::model::rope::Rope;
use crate::model::spec::{
    Embedding, FeedForward, Gating, Head, Layer, Linear, Norm, NormKind, SelfAttention, Transformer,
};
use invarlock_error::Result;

/// Queries, keys and values of a head lie side by side; a part of each head is rotated.
pub fn read(config: &Config, seq_len: usize) -> Result<Transformer> {
    let hidden_size = config.required_size("hidden_size", limits::WIDTH)?;
    let num_heads = config.required_size("num_attention_heads", limits::HEADS)?;
    let num_layers = config.required_size("num_hidden_layers", limits::LAYERS)?;
    let width = config.required_size("intermediate_size", limits::WIDTH)?;
    let epsilon = config.positive("layer_norm_eps", 1e-5)? as f32;
    let head_dim = per_head(config, ("hidden_size", hidden_size), ("num_attention_heads", num_heads))?;
    let gating = Gating::None(config.activation("hidden_act", "gelu")?);
    let bias = config.flag("attention_bias", true)?;
    let parallel = config.flag("use_parallel_residual", true)?;
    let rope = Rope {
        theta: config.positive("rotary_emb_base", 10_000.0)?,
        partial: config.positive("rotary_pct", 0.25)?,
        ..Rope::new(head_dim, seq_len)
    };
    let rotary = Arc::new(Rotary::new(rope.read(config)?, Pairing::Halves, seq_len));

    let norm = |module: String| Norm::new(module, NormKind::Layer, epsilon);
    let layer = |i: usize| {
        let name = |module: &str| format!("layers.{i}.{module}");
        let attention =
            Attention { columns: Columns::Grouped, ..Attention::new(num_heads, num_heads, head_dim) };
        let mut attention = SelfAttention::new(
            attention,
            vec![Linear::new(&name("attention.query_key_value"), hidden_size, 3 * hidden_size, bias)],
            Linear::new(&name("attention.dense"), hidden_size, hidden_size, bias),
        );
        attention.rotary = Some(rotary.clone());
        let mlp = plain_mlp(
            Linear::new(&name("mlp.dense_h_to_4h"), hidden_size, width, true),
            gating,
            Linear::new(&name("mlp.dense_4h_to_h"), width, hidden_size, true),
        );
        let norms = [norm(name("input_layernorm")), norm(name("post_attention_layernorm"))];
        Layer { parallel, ..Layer::sequential(norms, attention, FeedForward::Mlp(mlp)) }
    };
    Ok(Transformer {
        profile: Profile::Gpt2,
        prefix: "gpt_neox.",
        vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
        source: None,
        hidden_size,
        max_positions: None,
        embedding: Embedding::of("embed_in", hidden_size),
        layers: (0..num_layers).map(layer).collect(),
        norm: Some(norm("final_layer_norm".to_owned())),
        head: Head { module: "embed_out", ..Head::new(config.flag("tie_word_embeddings", false)?) },
    })
}
