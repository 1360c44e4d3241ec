//! Falcon, in the forms of the 1B, 7B, 40B and 180B models.

use std::sync::Arc;

use super::common::{Sizes, per_head, plain_mlp};
use crate::checkpoint::Config;
use crate::limits;
use crate::math::rotary::{Pairing, Rotary};
use crate::model::attention::{Alibi, Attention, Columns};
use crate::model::profile::Profile;
use crate::model::rope::Rope;
use crate::model::spec::{
    Embedding, FeedForward, Gating, Head, Layer, Linear, Norm, NormKind, SelfAttention, Transformer,
};
use invarlock_error::{Result, bail};

/// Parallel layers with one or two normalisations, rotary positions or linear biases, one key-value head, several or as many as query heads.
pub fn read(config: &Config, seq_len: usize) -> Result<Transformer> {
    let Sizes { hidden_size, num_layers, num_heads, heads, head_dim } = Sizes::read(config)?;
    let width = config.size("ffn_hidden_size", limits::WIDTH)?.unwrap_or(4 * hidden_size);
    let epsilon = config.positive("layer_norm_epsilon", 1e-5)? as f32;
    let grouped = config.flag("new_decoder_architecture", false)?;
    let num_kv_heads = match (grouped, config.flag("multi_query", true)?) {
        (true, _) => config.size("num_kv_heads", limits::HEADS)?.unwrap_or(num_heads),
        (false, true) => 1,
        (false, false) => num_heads,
    };
    per_head(config, (heads, num_heads), ("num_kv_heads", num_kv_heads))?;
    let bias = config.flag("bias", false)?;
    let gating = Gating::None(config.activation("activation", "gelu")?);
    let placement = Placement::read(config, grouped)?;
    let alibi = config.flag("alibi", false)?;
    let rotary = match alibi {
        true => None,
        false => {
            let frequencies = Rope::new(head_dim, seq_len).read(config)?;
            Some(Arc::new(Rotary::new(frequencies, Pairing::Halves, seq_len)))
        }
    };

    let norm = |module: String| Norm::new(module, NormKind::Layer, epsilon);
    let layer = |i: usize| {
        let name = |module: &str| format!("h.{i}.{module}");
        let mut attention =
            Attention { columns: Columns::Grouped, ..Attention::new(num_heads, num_kv_heads, head_dim) };
        attention.alibi = alibi.then(|| Alibi::new(num_heads, Some(attention.scale)));
        let mut attention = SelfAttention::new(
            attention.clone(),
            vec![Linear::new(
                &name("self_attention.query_key_value"),
                hidden_size,
                attention.qkv_width(),
                bias,
            )],
            Linear::new(&name("self_attention.dense"), hidden_size, hidden_size, bias),
        );
        attention.rotary = rotary.clone();
        let mlp = FeedForward::Mlp(plain_mlp(
            Linear::new(&name("mlp.dense_h_to_4h"), hidden_size, width, bias),
            gating,
            Linear::new(&name("mlp.dense_4h_to_h"), width, hidden_size, bias),
        ));
        match placement {
            Placement::Sequential => {
                let norms = [norm(name("input_layernorm")), norm(name("post_attention_layernorm"))];
                Layer::sequential(norms, attention, mlp)
            }
            Placement::Parallel => Layer::parallel(norm(name("input_layernorm")), attention, mlp),
            Placement::ParallelTwoNorms => {
                let norms = [norm(name("ln_attn")), norm(name("ln_mlp"))];
                Layer { parallel: true, ..Layer::sequential(norms, attention, mlp) }
            }
        }
    };
    Ok(Transformer {
        profile: Profile::Gpt2,
        prefix: "transformer.",
        vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
        source: None,
        hidden_size,
        max_positions: None,
        embedding: Embedding::of("word_embeddings", hidden_size),
        layers: (0..num_layers).map(layer).collect(),
        norm: Some(norm("ln_f".to_owned())),
        head: Head::new(config.flag("tie_word_embeddings", true)?),
    })
}

/// Where the normalisations of a layer are.
#[derive(Debug, Clone, Copy)]
enum Placement {
    Sequential,
    Parallel,
    ParallelTwoNorms,
}

impl Placement {
    fn read(config: &Config, grouped: bool) -> Result<Self> {
        let parallel = config.flag("parallel_attn", true)?;
        let norms = config.size("num_ln_in_parallel_attn", 2)?;
        Ok(match (grouped, parallel, norms) {
            (true, true, None | Some(2)) => Self::ParallelTwoNorms,
            (false, true, None | Some(1)) | (true, true, Some(1)) => Self::Parallel,
            (false, false, _) => Self::Sequential,
            _ => bail!(
                Unsupported,
                "{}: these values of `new_decoder_architecture`, `parallel_attn` and `num_ln_in_parallel_attn` are not \
                 supported together",
                config.name()
            ),
        })
    }
}
