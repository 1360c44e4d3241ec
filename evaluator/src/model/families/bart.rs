//! BART.

use super::common::{per_head, plain_mlp, token_id};
use crate::checkpoint::Config;
use crate::limits;
use crate::math::activation::Activation;
use crate::model::attention::{Attention, Columns, Mask};
use crate::model::profile::Profile;
use crate::model::spec::{
    CrossAttention, Embedding, FeedForward, Gating, Head, HeadBias, Layer, Linear, Norm, NormKind, Positions,
    SelfAttention, Source, Sublayer, Transformer,
};
use invarlock_error::Result;

/// Epsilon of every normalisation; no member sets it.
const EPSILON: f32 = 1e-5;
/// Row of the first position.
const FIRST_POSITION: usize = 2;

/// Learned positions; the hidden state is normalised after each sum.
pub fn read(config: &Config, _: usize) -> Result<Transformer> {
    // Members of the first release for models that transformers computes in another way.
    config.reject_options(&["add_final_layer_norm", "normalize_before", "static_position_embeddings"])?;
    config.flag("is_encoder_decoder", true)?;
    let size = config.required_size("d_model", limits::WIDTH)?;
    let max_positions = config.required_size("max_position_embeddings", limits::POSITIONS)?;
    let scaled = config.flag("scale_embedding", false)?;
    let scale = if scaled { (size as f64).sqrt() as f32 } else { 1.0 };
    let encoder = Stack::read(config, ENCODER, size)?;
    let decoder = Stack::read(config, DECODER, size)?;
    let embedding = |stack: &Stack| Embedding {
        scale,
        copies: &["encoder.embed_tokens", "decoder.embed_tokens"],
        positions: Some(Positions {
            first: FIRST_POSITION,
            ..Positions::new(stack.names.positions, max_positions + FIRST_POSITION)
        }),
        norm: Some(norm(format!("{}.layernorm_embedding", stack.names.stack))),
        ..Embedding::of("shared", size)
    };
    Ok(Transformer {
        profile: Profile::Seq2Seq,
        prefix: "model.",
        vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
        source: Some(Source {
            embedding: embedding(&encoder),
            layers: (0..encoder.num_layers).map(|i| encoder.layer(Mask::Full, i)).collect(),
            norm: None,
            start_token: token_id(config, "decoder_start_token_id", Some(2))?,
            pad_token: token_id(config, "pad_token_id", Some(1))?,
        }),
        hidden_size: size,
        max_positions: Some(max_positions),
        embedding: embedding(&decoder),
        layers: (0..decoder.num_layers).map(|i| decoder.layer(Mask::Causal, i)).collect(),
        norm: None,
        head: Head {
            bias: HeadBias::Buffer("final_logits_bias"),
            ..Head::new(config.flag("tie_word_embeddings", true)?)
        },
    })
}

fn norm(module: String) -> Norm {
    Norm::new(module, NormKind::Layer, EPSILON)
}

/// The names of a stack's members and modules.
struct Names {
    stack: &'static str,
    positions: &'static str,
    layers: &'static str,
    heads: &'static str,
    width: &'static str,
}

const ENCODER: Names = Names {
    stack: "encoder",
    positions: "encoder.embed_positions",
    layers: "encoder_layers",
    heads: "encoder_attention_heads",
    width: "encoder_ffn_dim",
};
const DECODER: Names = Names {
    stack: "decoder",
    positions: "decoder.embed_positions",
    layers: "decoder_layers",
    heads: "decoder_attention_heads",
    width: "decoder_ffn_dim",
};

struct Stack {
    names: Names,
    hidden_size: usize,
    width: usize,
    num_layers: usize,
    num_heads: usize,
    head_dim: usize,
    activation: Activation,
}

impl Stack {
    fn read(config: &Config, names: Names, hidden_size: usize) -> Result<Self> {
        let num_heads = config.required_size(names.heads, limits::HEADS)?;
        Ok(Self {
            hidden_size,
            width: config.required_size(names.width, limits::WIDTH)?,
            num_layers: config.required_size(names.layers, limits::LAYERS)?,
            num_heads,
            head_dim: per_head(config, ("d_model", hidden_size), (names.heads, num_heads))?,
            activation: config.activation("activation_function", "gelu")?,
            names,
        })
    }

    /// A layer. Those of the decoder attend to the source.
    fn layer(&self, mask: Mask, i: usize) -> Layer {
        let size = self.hidden_size;
        let name = |module: &str| format!("{}.layers.{i}.{module}", self.names.stack);
        let projection = |module: &str| Linear::new(&name(module), size, size, true);
        let attention = |mask, columns| Attention {
            mask,
            columns,
            ..Attention::new(self.num_heads, self.num_heads, self.head_dim)
        };
        let own = SelfAttention::new(
            attention(mask, Columns::Split),
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(projection).into(),
            projection("self_attn.out_proj"),
        );
        let cross = (mask == Mask::Causal).then(|| {
            let cross = CrossAttention {
                attention: attention(Mask::Full, Columns::Separate),
                query: projection("encoder_attn.q_proj"),
                key_value: ["encoder_attn.k_proj", "encoder_attn.v_proj"].map(projection).into(),
                output: projection("encoder_attn.out_proj"),
            };
            Sublayer::sum_normed(norm(name("encoder_attn_layer_norm")), cross)
        });
        let mlp = plain_mlp(
            Linear::new(&name("fc1"), size, self.width, true),
            Gating::None(self.activation),
            Linear::new(&name("fc2"), self.width, size, true),
        );
        let own = Sublayer::sum_normed(norm(name("self_attn_layer_norm")), own);
        let mlp = Sublayer::sum_normed(norm(name("final_layer_norm")), FeedForward::Mlp(mlp));
        Layer { cross, ..Layer::of(own, mlp) }
    }
}
