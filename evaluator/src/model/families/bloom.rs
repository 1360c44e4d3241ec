//! BLOOM.

use super::common::{Sizes, plain_mlp};
use crate::checkpoint::Config;
use crate::limits;
use crate::math::activation::Activation;
use crate::model::attention::{Alibi, Attention, Columns};
use crate::model::profile::Profile;
use crate::model::spec::{
    Embedding, FeedForward, Gating, Head, Layer, Linear, Norm, NormKind, SelfAttention, Transformer,
};
use invarlock_error::Result;

/// Linear biases in place of positions, and normalised embeddings.
pub fn read(config: &Config, _: usize) -> Result<Transformer> {
    let Sizes { hidden_size, num_layers, num_heads, head_dim, .. } = Sizes::read(config)?;
    let epsilon = config.positive("layer_norm_epsilon", 1e-5)? as f32;

    let normed_residual = config.flag("apply_residual_connection_post_layernorm", false)?;
    let norm = |module: String| Norm::new(module, NormKind::Layer, epsilon);
    let layer = |i: usize| {
        let name = |module: &str| format!("h.{i}.{module}");
        let attention = Attention {
            columns: Columns::Grouped,
            alibi: Some(Alibi::new(num_heads, None)),
            ..Attention::new(num_heads, num_heads, head_dim)
        };
        let attention = SelfAttention::new(
            attention,
            vec![Linear::new(&name("self_attention.query_key_value"), hidden_size, 3 * hidden_size, true)],
            Linear::new(&name("self_attention.dense"), hidden_size, hidden_size, true),
        );
        let mlp = plain_mlp(
            Linear::new(&name("mlp.dense_h_to_4h"), hidden_size, 4 * hidden_size, true),
            Gating::None(Activation::GeluTanh),
            Linear::new(&name("mlp.dense_4h_to_h"), 4 * hidden_size, hidden_size, true),
        );
        let norms = [norm(name("input_layernorm")), norm(name("post_attention_layernorm"))];
        Layer { normed_residual, ..Layer::sequential(norms, attention, FeedForward::Mlp(mlp)) }
    };
    Ok(Transformer {
        profile: Profile::Gpt2,
        prefix: "transformer.",
        vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
        source: None,
        hidden_size,
        max_positions: None,
        embedding: Embedding {
            norm: Some(norm("word_embeddings_layernorm".to_owned())),
            ..Embedding::of("word_embeddings", hidden_size)
        },
        layers: (0..num_layers).map(layer).collect(),
        norm: Some(norm("ln_f".to_owned())),
        head: Head::new(config.flag("tie_word_embeddings", true)?),
    })
}
