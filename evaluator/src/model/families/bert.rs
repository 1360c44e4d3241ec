//! BERT, RoBERTa and ELECTRA: encoders whose hidden states are normalised after each sum.

use super::common::{per_head, plain_mlp, token_id};
use crate::checkpoint::Config;
use crate::limits;
use crate::math::activation::Activation;
use crate::model::attention::{Attention, Mask};
use crate::model::profile::Profile;
use crate::model::spec::{
    Embedding, FeedForward, Gating, Head, HeadBias, Layer, Linear, Norm, NormKind, Positions, SelfAttention,
    Sublayer, Transform, Transformer,
};
use crate::weights::choice;
use invarlock_error::{Result, bail};

/// BERT.
pub fn bert(config: &Config, _: usize) -> Result<Transformer> {
    let encoder = Encoder::read(config)?;
    let module = "cls.predictions.transform";
    let transform = Transform {
        dense: Linear::new(&format!("{module}.dense"), encoder.hidden_size, encoder.hidden_size, true),
        activation: encoder.activation,
        norm: encoder.norm(format!("{module}.LayerNorm")),
    };
    let head = Head {
        module: "cls.predictions.decoder",
        bias: HeadBias::Shared("cls.predictions.bias"),
        transform: Some(transform),
        ..Head::new(config.flag("tie_word_embeddings", true)?)
    };
    let positions = Positions::new(POSITIONS, encoder.max_positions);
    encoder.describe(config, "bert.", positions, head)
}

/// RoBERTa: positions are counted from the padding token on, and padding is not counted.
pub fn roberta(config: &Config, _: usize) -> Result<Transformer> {
    let encoder = Encoder::read(config)?;
    let size = encoder.hidden_size;
    let padding = token_id(config, "pad_token_id", Some(1))? as usize;
    let (rows, first) = (encoder.max_positions, padding + 1);
    if rows <= first {
        bail!(
            Input,
            "{}: `max_position_embeddings` {rows} leaves no position after `pad_token_id` {padding}",
            config.name()
        );
    }
    let head = Head {
        module: "lm_head.decoder",
        bias: HeadBias::Shared("lm_head.bias"),
        transform: Some(Transform {
            dense: Linear::new("lm_head.dense", size, size, true),
            activation: Activation::Gelu,
            norm: encoder.norm("lm_head.layer_norm".to_owned()),
        }),
        ..Head::new(config.flag("tie_word_embeddings", true)?)
    };
    let positions = Positions { module: POSITIONS, rows, first, padding: Some(padding) };
    let encoder = Encoder { max_positions: rows - first, ..encoder };
    encoder.describe(config, "roberta.", positions, head)
}

/// ELECTRA's generator: as BERT, with embeddings of another size.
pub fn electra(config: &Config, _: usize) -> Result<Transformer> {
    let encoder = Encoder::read(config)?;
    let (size, embedded) =
        (encoder.hidden_size, config.size("embedding_size", limits::WIDTH)?.unwrap_or(128));
    let head = Head {
        module: "generator_lm_head",
        bias: HeadBias::Module,
        transform: Some(Transform {
            dense: Linear::new("generator_predictions.dense", size, embedded, true),
            activation: Activation::Gelu,
            norm: encoder.norm("generator_predictions.LayerNorm".to_owned()),
        }),
        ..Head::new(config.flag("tie_word_embeddings", true)?)
    };
    let positions = Positions::new(POSITIONS, encoder.max_positions);
    let mut model = encoder.describe(config, "electra.", positions, head)?;
    model.embedding.width = embedded;
    model.embedding.project_sum =
        (embedded != size).then(|| Linear::new("embeddings_project", embedded, size, true));
    Ok(model)
}

/// Module of the embedding of positions.
const POSITIONS: &str = "embeddings.position_embeddings";

/// What the configurations of these models have in common.
#[derive(Debug, Clone, Copy)]
struct Encoder {
    hidden_size: usize,
    intermediate_size: usize,
    num_layers: usize,
    num_heads: usize,
    max_positions: usize,
    token_types: usize,
    activation: Activation,
    epsilon: f32,
}

impl Encoder {
    fn read(config: &Config) -> Result<Self> {
        choice(config, "position_embedding_type", &["absolute"])?;
        // The decoder of an encoder-decoder model.
        config.reject_options(&["is_decoder"])?;
        Ok(Self {
            hidden_size: config.required_size("hidden_size", limits::WIDTH)?,
            intermediate_size: config.required_size("intermediate_size", limits::WIDTH)?,
            num_layers: config.required_size("num_hidden_layers", limits::LAYERS)?,
            num_heads: config.required_size("num_attention_heads", limits::HEADS)?,
            max_positions: config.required_size("max_position_embeddings", limits::POSITIONS)?,
            token_types: config.size("type_vocab_size", limits::VOCAB)?.unwrap_or(2),
            activation: config.activation("hidden_act", "gelu")?,
            epsilon: config.positive("layer_norm_eps", 1e-12)? as f32,
        })
    }

    fn norm(&self, module: String) -> Norm {
        Norm::new(module, NormKind::Layer, self.epsilon)
    }

    /// The model with these positions and this head.
    fn describe(
        &self,
        config: &Config,
        prefix: &'static str,
        positions: Positions,
        head: Head,
    ) -> Result<Transformer> {
        let Self { hidden_size, num_heads, .. } = *self;
        let head_dim = per_head(config, ("hidden_size", hidden_size), ("num_attention_heads", num_heads))?;
        let attention = Attention { mask: Mask::Full, ..Attention::new(num_heads, num_heads, head_dim) };
        Ok(Transformer {
            profile: Profile::Bert,
            prefix,
            vocab_size: config.required_size("vocab_size", limits::VOCAB)?,
            source: None,
            hidden_size,
            max_positions: Some(self.max_positions),
            embedding: Embedding {
                token_types: Some(("embeddings.token_type_embeddings", self.token_types)),
                positions: Some(positions),
                norm: Some(self.norm("embeddings.LayerNorm".to_owned())),
                ..Embedding::of("embeddings.word_embeddings", hidden_size)
            },
            layers: (0..self.num_layers).map(|i| self.layer(i, &attention)).collect(),
            norm: None,
            head,
        })
    }

    fn layer(&self, i: usize, attention: &Attention) -> Layer {
        let (size, width) = (self.hidden_size, self.intermediate_size);
        let name = |module: &str| format!("encoder.layer.{i}.{module}");
        let linear = |module: &str, inputs, outputs| Linear::new(&name(module), inputs, outputs, true);
        let projections = ["query", "key", "value"];
        let attention = SelfAttention::new(
            attention.clone(),
            projections.map(|module| linear(&format!("attention.self.{module}"), size, size)).into(),
            linear("attention.output.dense", size, size),
        );
        let mlp = plain_mlp(
            linear("intermediate.dense", size, width),
            Gating::None(self.activation),
            linear("output.dense", width, size),
        );
        Layer::of(
            Sublayer::sum_normed(self.norm(name("attention.output.LayerNorm")), attention),
            Sublayer::sum_normed(self.norm(name("output.LayerNorm")), FeedForward::Mlp(mlp)),
        )
    }
}
