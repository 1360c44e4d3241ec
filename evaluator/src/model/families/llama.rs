//! Llama, and the description from which similar families start.

use std::sync::Arc;

use super::common::per_head;
use crate::checkpoint::Config;
use crate::limits;
use crate::math::activation::Activation;
use crate::math::rotary::{Pairing, Rotary};
use crate::model::attention::Attention;
use crate::model::profile::Profile;
use crate::model::rope::Rope;
use crate::model::spec::{
    Embedding, FeedForward, Gating, Head, Layer, Linear, Mlp, Norm, NormKind, SelfAttention, Transformer,
};
use invarlock_error::{Result, bail};

/// What a family says where it resembles Llama. The default is Llama.
#[derive(Debug, Clone)]
pub struct Defaults {
    pub profile: Profile,
    pub norm: NormKind,
    /// Member with the epsilon of normalisations, and its default.
    pub epsilon: (&'static str, f64),
    /// Member with the activation function, and its default.
    pub activation: (&'static str, &'static str),
    pub tied: bool,
    /// `head_dim` where the configuration lacks it; otherwise `hidden_size` over the number of heads.
    pub head_dim: Option<usize>,
    /// Whether an absent `num_key_value_heads` means as many as query heads. Other families have numbers that differ by release of transformers.
    pub kv_heads_default: bool,
    pub theta: f64,
    pub partial: f64,
    /// The kind of layer whose rotary parameters all layers get, where each kind has its own.
    pub rope_layer_type: Option<&'static str>,
    /// As [`Rope::mrope`].
    pub mrope: bool,
    pub pairing: Pairing,
    /// Whether projections have biases.
    pub bias: Biases,
}

/// Which projections have biases.
#[derive(Debug, Clone, Copy, Default)]
pub struct Biases {
    pub qkv: bool,
    pub output: bool,
    pub mlp: bool,
}

impl Biases {
    /// `attention_bias`, for all projections of the attention.
    pub fn attention(config: &Config, default: bool) -> Result<Self> {
        let bias = config.flag("attention_bias", default)?;
        Ok(Self { qkv: bias, output: bias, mlp: false })
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            profile: Profile::Named("llama"),
            norm: NormKind::Rms,
            epsilon: ("rms_norm_eps", 1e-6),
            activation: ("hidden_act", "silu"),
            tied: false,
            head_dim: None,
            kv_heads_default: true,
            theta: 10_000.0,
            partial: 1.0,
            rope_layer_type: None,
            mrope: false,
            pairing: Pairing::Halves,
            bias: Biases::default(),
        }
    }
}

/// Llama.
pub fn read(config: &Config, seq_len: usize) -> Result<Transformer> {
    let mlp = config.flag("mlp_bias", false)?;
    let bias = Biases { mlp, ..Biases::attention(config, false)? };
    let decoder = decoder(config, seq_len, &Defaults { bias, ..Defaults::default() })?;
    all_full_attention(config, &decoder)?;
    Ok(decoder)
}

/// `layer_types` may say that no layer has a window.
pub fn all_full_attention(config: &Config, decoder: &Transformer) -> Result<()> {
    let kinds = super::common::layer_types(config, decoder.layers.len())?;
    if kinds.is_some_and(|sliding| sliding.contains(&true)) {
        bail!(
            Unsupported,
            "{}: `layer_types` with sliding_attention is not supported for this model_type",
            config.name()
        );
    }
    Ok(())
}

/// Sizes that every such configuration has.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
}

impl Sizes {
    /// Reads the sizes.
    pub fn read(config: &Config, defaults: &Defaults) -> Result<Self> {
        let hidden_size = config.required_size("hidden_size", limits::WIDTH)?;
        let num_heads = config.required_size("num_attention_heads", limits::HEADS)?;
        let key = "num_key_value_heads";
        let num_kv_heads = match config.size(key, limits::HEADS)? {
            Some(n) => n,
            None if defaults.kv_heads_default || config.contains(key) => num_heads,
            None => config.required_size(key, limits::HEADS)?,
        };
        let head_dim = match config.size("head_dim", limits::HEADS)?.or(defaults.head_dim) {
            Some(head_dim) => head_dim,
            None => per_head(config, ("hidden_size", hidden_size), ("num_attention_heads", num_heads))?,
        };
        per_head(config, ("num_attention_heads", num_heads), (key, num_kv_heads))?;
        Ok(Self {
            hidden_size,
            intermediate_size: config.required_size("intermediate_size", limits::WIDTH)?,
            num_layers: config.required_size("num_hidden_layers", limits::LAYERS)?,
            num_heads,
            num_kv_heads,
            head_dim,
        })
    }
}

/// The description of a Llama with these defaults. Every layer is alike; a family changes what differs.
pub fn decoder(config: &Config, seq_len: usize, defaults: &Defaults) -> Result<Transformer> {
    let sizes = Sizes::read(config, defaults)?;
    let Sizes { hidden_size, intermediate_size, .. } = sizes;
    let epsilon = epsilon(config, defaults)?;
    let activation = config.activation(defaults.activation.0, defaults.activation.1)?;
    let rope = Rope {
        theta: defaults.theta,
        partial: defaults.partial,
        layer_type: defaults.rope_layer_type,
        mrope: defaults.mrope,
        ..Rope::new(sizes.head_dim, seq_len)
    };
    let rotary = Arc::new(Rotary::new(rope.read(config)?, defaults.pairing, seq_len));
    let layer = |i: usize| {
        let norm = |module: &str| Norm::new(format!("layers.{i}.{module}"), defaults.norm, epsilon);
        let mut attention = attention(&format!("layers.{i}.self_attn"), &sizes, defaults.bias);
        attention.rotary = Some(rotary.clone());
        let mlp = gated_mlp(
            &format!("layers.{i}.mlp"),
            hidden_size,
            intermediate_size,
            activation,
            defaults.bias.mlp,
        );
        Layer::sequential(
            [norm("input_layernorm"), norm("post_attention_layernorm")],
            attention,
            FeedForward::Mlp(mlp),
        )
    };
    Ok(Transformer {
        profile: defaults.profile,
        prefix: "model.",
        vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
        source: None,
        hidden_size,
        // Rotary angles exist for any position; the window length is the user's choice.
        max_positions: None,
        embedding: Embedding::of("embed_tokens", hidden_size),
        layers: (0..sizes.num_layers).map(layer).collect(),
        norm: Some(Norm::new("norm", defaults.norm, epsilon)),
        head: Head::new(config.flag("tie_word_embeddings", defaults.tied)?),
    })
}

/// The epsilon of normalisations.
pub fn epsilon(config: &Config, defaults: &Defaults) -> Result<f32> {
    Ok(config.positive(defaults.epsilon.0, defaults.epsilon.1)? as f32)
}

/// An attention module with separate projections.
fn attention(module: &str, sizes: &Sizes, bias: Biases) -> SelfAttention {
    let Sizes { hidden_size, num_heads, num_kv_heads, head_dim, .. } = *sizes;
    let (queries, keys) = (num_heads * head_dim, num_kv_heads * head_dim);
    let projection =
        |name: &str, outputs| Linear::new(&format!("{module}.{name}"), hidden_size, outputs, bias.qkv);
    SelfAttention::new(
        Attention::new(num_heads, num_kv_heads, head_dim),
        vec![projection("q_proj", queries), projection("k_proj", keys), projection("v_proj", keys)],
        Linear::new(&format!("{module}.o_proj"), queries, hidden_size, bias.output),
    )
}

/// `down_proj` · (f(`gate_proj` · x) · (`up_proj` · x)).
pub fn gated_mlp(module: &str, hidden_size: usize, width: usize, activation: Activation, bias: bool) -> Mlp {
    let linear =
        |name: &str, inputs, outputs| Linear::new(&format!("{module}.{name}"), inputs, outputs, bias);
    Mlp {
        input: vec![linear("gate_proj", hidden_size, width), linear("up_proj", hidden_size, width)],
        gating: Gating::Halves(activation),
        output: linear("down_proj", width, hidden_size),
    }
}
