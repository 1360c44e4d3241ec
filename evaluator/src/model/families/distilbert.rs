//! DistilBERT.

use super::common::{per_head, plain_mlp};
use crate::checkpoint::Config;
use crate::limits;
use crate::model::attention::{Attention, Mask};
use crate::model::profile::Profile;
use crate::model::spec::{
    Embedding, FeedForward, Gating, Head, HeadBias, Layer, Linear, Norm, NormKind, Positions, SelfAttention,
    Sublayer, Transform, Transformer,
};
use invarlock_error::Result;

/// Epsilon of every normalisation; no member sets it.
const EPSILON: f32 = 1e-12;

/// As BERT with other names, and without types of tokens.
pub fn read(config: &Config, _: usize) -> Result<Transformer> {
    let size = config.required_size("dim", limits::WIDTH)?;
    let width = config.required_size("hidden_dim", limits::WIDTH)?;
    let num_layers = config.required_size("n_layers", limits::LAYERS)?;
    let num_heads = config.required_size("n_heads", limits::HEADS)?;
    let max_positions = config.required_size("max_position_embeddings", limits::POSITIONS)?;
    let activation = config.activation("activation", "gelu")?;
    let head_dim = per_head(config, ("dim", size), ("n_heads", num_heads))?;
    let attention = Attention { mask: Mask::Full, ..Attention::new(num_heads, num_heads, head_dim) };
    // The embeddings are stored; the option says how they were initialised.
    config.flag("sinusoidal_pos_embds", false)?;

    let norm = |module: String| Norm::new(module, NormKind::Layer, EPSILON);
    let layer = |i: usize| {
        let name = |module: &str| format!("transformer.layer.{i}.{module}");
        let linear = |module: &str, inputs, outputs| Linear::new(&name(module), inputs, outputs, true);
        let projection = |module: &str| linear(&format!("attention.{module}"), size, size);
        let projections = ["q_lin", "k_lin", "v_lin"].map(projection).into();
        let module = SelfAttention::new(attention.clone(), projections, projection("out_lin"));
        let mlp = plain_mlp(
            linear("ffn.lin1", size, width),
            Gating::None(activation),
            linear("ffn.lin2", width, size),
        );
        Layer::of(
            Sublayer::sum_normed(norm(name("sa_layer_norm")), module),
            Sublayer::sum_normed(norm(name("output_layer_norm")), FeedForward::Mlp(mlp)),
        )
    };
    Ok(Transformer {
        profile: Profile::Bert,
        prefix: "distilbert.",
        vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
        source: None,
        hidden_size: size,
        max_positions: Some(max_positions),
        embedding: Embedding {
            positions: Some(Positions::new("embeddings.position_embeddings", max_positions)),
            norm: Some(norm("embeddings.LayerNorm".to_owned())),
            ..Embedding::of("embeddings.word_embeddings", size)
        },
        layers: (0..num_layers).map(layer).collect(),
        norm: None,
        head: Head {
            module: "vocab_projector",
            bias: HeadBias::Module,
            transform: Some(Transform {
                dense: Linear::new("vocab_transform", size, size, true),
                activation,
                norm: norm("vocab_layer_norm".to_owned()),
            }),
            ..Head::new(config.flag("tie_word_embeddings", true)?)
        },
    })
}
