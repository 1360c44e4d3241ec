//! OPT.

use super::common::{per_head, plain_mlp};
use crate::checkpoint::Config;
use crate::limits;
use crate::model::attention::Attention;
use crate::model::profile::Profile;
use crate::model::spec::{
    Embedding, FeedForward, Gating, Head, Layer, Linear, Norm, NormKind, Positions, SelfAttention, Sublayer,
    Transformer,
};
use invarlock_error::Result;

/// Epsilon of every normalisation; no member sets it.
const EPSILON: f32 = 1e-5;
/// Row of the first position.
const FIRST_POSITION: usize = 2;

/// Learned positions; in the 350M model the hidden state is normalised after each sum, and token embeddings are narrower.
pub fn read(config: &Config, _: usize) -> Result<Transformer> {
    let hidden_size = config.required_size("hidden_size", limits::WIDTH)?;
    let num_heads = config.required_size("num_attention_heads", limits::HEADS)?;
    let num_layers = config.required_size("num_hidden_layers", limits::LAYERS)?;
    let max_positions = config.required_size("max_position_embeddings", limits::POSITIONS)?;
    let width = config.required_size("ffn_dim", limits::WIDTH)?;
    let embedded = config.size("word_embed_proj_dim", limits::WIDTH)?.unwrap_or(hidden_size);
    let head_dim = per_head(config, ("hidden_size", hidden_size), ("num_attention_heads", num_heads))?;
    let gating = Gating::None(config.activation("activation_function", "relu")?);
    let before = config.flag("do_layer_norm_before", true)?;
    let bias = config.flag("enable_bias", true)?;
    let kind = match config.flag("layer_norm_elementwise_affine", true)? {
        true => NormKind::Layer,
        false => NormKind::LayerPlain,
    };
    let final_norm = before && !config.flag("_remove_final_layer_norm", false)?;

    let norm = |module: String| Norm::new(module, kind, EPSILON);
    let layer = |i: usize| {
        let name = |module: &str| format!("layers.{i}.{module}");
        let projection = |module: &str| Linear::new(&name(module), hidden_size, hidden_size, bias);
        let attention = SelfAttention::new(
            Attention::new(num_heads, num_heads, head_dim),
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(projection).into(),
            projection("self_attn.out_proj"),
        );
        let mlp = plain_mlp(
            Linear::new(&name("fc1"), hidden_size, width, bias),
            gating,
            Linear::new(&name("fc2"), width, hidden_size, bias),
        );
        let norms = [norm(name("self_attn_layer_norm")), norm(name("final_layer_norm"))];
        let mut layer = Layer::sequential(norms, attention, FeedForward::Mlp(mlp));
        if !before {
            after_the_sum(&mut layer.attention);
            after_the_sum(&mut layer.feed_forward);
        }
        layer
    };
    let project = |module: &str, inputs, outputs| {
        (embedded != hidden_size).then(|| Linear::new(module, inputs, outputs, false))
    };
    let positions = Positions {
        first: FIRST_POSITION,
        ..Positions::new("embed_positions", max_positions + FIRST_POSITION)
    };
    Ok(Transformer {
        profile: Profile::Gpt2,
        prefix: "model.decoder.",
        vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
        source: None,
        hidden_size,
        max_positions: Some(max_positions),
        embedding: Embedding {
            width: embedded,
            positions: Some(positions),
            project_in: project("project_in", embedded, hidden_size),
            ..Embedding::of("embed_tokens", hidden_size)
        },
        layers: (0..num_layers).map(layer).collect(),
        norm: final_norm.then(|| norm("final_layer_norm".to_owned())),
        head: Head {
            project_out: project("project_out", hidden_size, embedded),
            ..Head::new(config.flag("tie_word_embeddings", true)?)
        },
    })
}

fn after_the_sum<T>(sublayer: &mut Sublayer<T>) {
    sublayer.sum = sublayer.before.take();
}
