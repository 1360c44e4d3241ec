//! GPT-2.

use super::common::{conv1d, per_head, plain_mlp};
use crate::checkpoint::Config;
use crate::limits;
use crate::model::attention::Attention;
use crate::model::profile::Profile;
use crate::model::spec::{
    Embedding, FeedForward, Gating, Head, Layer, Norm, NormKind, Positions, SelfAttention, Transformer,
};
use invarlock_error::Result;

/// Learned positions, fused queries, keys and values, and weights stored by inputs.
pub fn read(config: &Config, _: usize) -> Result<Transformer> {
    let hidden_size = config.required_size("n_embd", limits::WIDTH)?;
    let num_heads = config.required_size("n_head", limits::HEADS)?;
    let num_layers = config.required_size("n_layer", limits::LAYERS)?;
    let max_positions = config.required_size("n_positions", limits::POSITIONS)?;
    let width = config.size("n_inner", limits::WIDTH)?.unwrap_or(4 * hidden_size);
    let epsilon = config.positive("layer_norm_epsilon", 1e-5)? as f32;
    let head_dim = per_head(config, ("n_embd", hidden_size), ("n_head", num_heads))?;
    let gating = Gating::None(config.activation("activation_function", "gelu_new")?);
    let scaled = config.flag("scale_attn_weights", true)?;
    let by_layer = config.flag("scale_attn_by_inverse_layer_idx", false)?;
    // This option changes the order of operations only; everything is computed in single precision here anyway.
    config.flag("reorder_and_upcast_attn", false)?;

    let norm = |module: String| Norm::new(module, NormKind::Layer, epsilon);
    let layer = |i: usize| {
        let name = |module: &str| format!("h.{i}.{module}");
        let mut attention = Attention::new(num_heads, num_heads, head_dim);
        let scale = if scaled { 1.0 / (head_dim as f64).sqrt() } else { 1.0 };
        attention.scale = (if by_layer { scale / (i + 1) as f64 } else { scale }) as f32;
        let attention = SelfAttention::new(
            attention,
            vec![conv1d(&name("attn.c_attn"), hidden_size, 3 * hidden_size)],
            conv1d(&name("attn.c_proj"), hidden_size, hidden_size),
        );
        let mlp = plain_mlp(
            conv1d(&name("mlp.c_fc"), hidden_size, width),
            gating,
            conv1d(&name("mlp.c_proj"), width, hidden_size),
        );
        Layer::sequential([norm(name("ln_1")), norm(name("ln_2"))], attention, FeedForward::Mlp(mlp))
    };
    let positions = Positions::new("wpe", max_positions);
    Ok(Transformer {
        profile: Profile::Gpt2,
        prefix: "transformer.",
        vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
        source: None,
        hidden_size,
        max_positions: Some(max_positions),
        embedding: Embedding { positions: Some(positions), ..Embedding::of("wte", hidden_size) },
        layers: (0..num_layers).map(layer).collect(),
        norm: Some(norm("ln_f".to_owned())),
        head: Head::new(config.flag("tie_word_embeddings", true)?),
    })
}
