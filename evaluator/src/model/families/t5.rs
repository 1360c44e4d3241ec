//! T5, T5 1.1 and mT5.

use super::common::token_id;
use crate::checkpoint::Config;
use crate::limits;
use crate::math::activation::Activation;
use crate::model::attention::{Attention, Columns, Mask};
use crate::model::profile::Profile;
use crate::model::relative::Buckets;
use crate::model::spec::{
    CrossAttention, Embedding, FeedForward, Gating, Head, Layer, Linear, Mlp, Norm, NormKind, Relative,
    SelfAttention, Source, Sublayer, Transformer,
};
use invarlock_error::{Result, bail};

/// T5.
pub fn t5(config: &Config, _: usize) -> Result<Transformer> {
    let model = read(config, "relu", None)?;
    // A model without a head of its own is scaled unless this member says otherwise. Newer configurations have a member for it.
    let scaled = config.flag("tie_word_embeddings", true)?;
    let scale = match config.flag("scale_decoder_outputs", scaled)? {
        true => (model.hidden_size as f64).powf(-0.5) as f32,
        false => 1.0,
    };
    Ok(Transformer { head: Head { scale, ..model.head }, ..model })
}

/// mT5: as T5 1.1, whether or not the configuration ties the head.
pub fn mt5(config: &Config, _: usize) -> Result<Transformer> {
    config.flag("tie_word_embeddings", true)?;
    read(config, "gated-gelu", Some(0))
}

/// Positions are biases of scores by distance, which all layers of a stack share; scores are not scaled.
fn read(config: &Config, feed_forward: &str, start_token: Option<u32>) -> Result<Transformer> {
    let sizes = Sizes::read(config, feed_forward)?;
    config.flag("is_encoder_decoder", true)?;
    let decoder_layers = match config.size("num_decoder_layers", limits::LAYERS)? {
        Some(layers) => layers,
        None => sizes.num_layers,
    };
    let embedding = || Embedding {
        copies: &["encoder.embed_tokens", "decoder.embed_tokens"],
        ..Embedding::of("shared", sizes.hidden_size)
    };
    Ok(Transformer {
        profile: Profile::Seq2Seq,
        prefix: "",
        vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
        source: Some(Source {
            embedding: embedding(),
            layers: (0..sizes.num_layers).map(|i| sizes.layer("encoder", Mask::Full, i)).collect(),
            norm: Some(sizes.norm("encoder.final_layer_norm".to_owned())),
            start_token: token_id(config, "decoder_start_token_id", start_token)?,
            pad_token: token_id(config, "pad_token_id", Some(0))?,
        }),
        hidden_size: sizes.hidden_size,
        // Distances beyond the largest share a bias.
        max_positions: None,
        embedding: embedding(),
        layers: (0..decoder_layers).map(|i| sizes.layer("decoder", Mask::Causal, i)).collect(),
        norm: Some(sizes.norm("decoder.final_layer_norm".to_owned())),
        // transformers ties the head in any case, unless a different one is stored.
        head: Head::new(true),
    })
}

struct Sizes {
    hidden_size: usize,
    head_dim: usize,
    width: usize,
    num_layers: usize,
    num_heads: usize,
    epsilon: f32,
    activation: Activation,
    gated: bool,
    buckets: usize,
    max_distance: usize,
}

impl Sizes {
    fn read(config: &Config, default: &str) -> Result<Self> {
        let (activation, gated) = feed_forward(config, default)?;
        let buckets = config.size("relative_attention_num_buckets", limits::WIDTH)?.unwrap_or(32);
        let max_distance = config.size("relative_attention_max_distance", limits::SEQ_LEN)?.unwrap_or(128);
        if buckets < 4 || max_distance < buckets {
            bail!(
                Input,
                "{}: `relative_attention_num_buckets` {buckets} must be at least 4 and at most \
                 `relative_attention_max_distance` {max_distance}",
                config.name()
            );
        }
        Ok(Self {
            hidden_size: config.required_size("d_model", limits::WIDTH)?,
            head_dim: config.required_size("d_kv", limits::HEADS)?,
            width: config.required_size("d_ff", limits::WIDTH)?,
            num_layers: config.required_size("num_layers", limits::LAYERS)?,
            num_heads: config.required_size("num_heads", limits::HEADS)?,
            epsilon: config.positive("layer_norm_epsilon", 1e-6)? as f32,
            activation,
            gated,
            buckets,
            max_distance,
        })
    }

    fn norm(&self, module: String) -> Norm {
        Norm::new(module, NormKind::Rms, self.epsilon)
    }

    /// A layer of a stack. Those of the decoder attend to the source.
    fn layer(&self, stack: &str, mask: Mask, i: usize) -> Layer {
        let module = |sublayer: usize| format!("{stack}.block.{i}.layer.{sublayer}");
        let norm = |sublayer: usize| self.norm(format!("{}.layer_norm", module(sublayer)));
        let (size, width) = (self.hidden_size, self.num_heads * self.head_dim);
        let projection = |module: &str, name: &str| {
            let (inputs, outputs) = if name == "o" { (width, size) } else { (size, width) };
            Linear::new(&format!("{module}.{name}"), inputs, outputs, false)
        };
        let attention = |mask, columns| Attention {
            mask,
            columns,
            scale: 1.0,
            ..Attention::new(self.num_heads, self.num_heads, self.head_dim)
        };
        let own = format!("{}.SelfAttention", module(0));
        let mut self_attention = SelfAttention::new(
            attention(mask, Columns::Split),
            ["q", "k", "v"].map(|name| projection(&own, name)).into(),
            projection(&own, "o"),
        );
        let bidirectional = mask == Mask::Full;
        let buckets = Buckets { count: self.buckets, max_distance: self.max_distance, bidirectional };
        let bias = format!("{own}.relative_attention_bias");
        self_attention.relative = (i == 0).then_some(Relative { module: bias, buckets });
        let cross = (mask == Mask::Causal).then(|| {
            let other = format!("{}.EncDecAttention", module(1));
            let cross = CrossAttention {
                attention: attention(Mask::Full, Columns::Separate),
                query: projection(&other, "q"),
                key_value: ["k", "v"].map(|name| projection(&other, name)).into(),
                output: projection(&other, "o"),
            };
            Sublayer::normed(norm(1), cross)
        });
        let last = if cross.is_some() { 2 } else { 1 };
        let mlp = self.mlp(&format!("{}.DenseReluDense", module(last)));
        let feed_forward = Sublayer::normed(norm(last), FeedForward::Mlp(mlp));
        Layer { cross, ..Layer::of(Sublayer::normed(norm(0), self_attention), feed_forward) }
    }

    fn mlp(&self, module: &str) -> Mlp {
        let (size, width) = (self.hidden_size, self.width);
        let input = |name: &str| Linear::new(&format!("{module}.{name}"), size, width, false);
        let (input, gating) = match self.gated {
            true => (vec![input("wi_0"), input("wi_1")], Gating::Halves(self.activation)),
            false => (vec![input("wi")], Gating::None(self.activation)),
        };
        Mlp { input, gating, output: Linear::new(&format!("{module}.wo"), width, size, false) }
    }
}

/// The activation function that `feed_forward_proj` names, and whether there is a gate.
fn feed_forward(config: &Config, default: &str) -> Result<(Activation, bool)> {
    let key = "feed_forward_proj";
    let name = config.text(key)?.unwrap_or(default);
    let gated = name.strip_prefix("gated-");
    let activation = match gated {
        Some("gelu") => Some(Activation::GeluTanh),
        _ => Activation::by_name(gated.unwrap_or(name)),
    };
    match activation {
        Some(activation) => Ok((activation, gated.is_some())),
        None => bail!(
            Unsupported,
            "{}: {} {name:?} is not supported; supported: {}, each also after gated-",
            config.name(),
            config.member(key),
            Activation::NAMES
        ),
    }
}
