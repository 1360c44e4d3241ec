//! BERT, RoBERTa, ELECTRA and ALBERT: encoders whose hidden states are normalised after each sum.

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

/// RoBERTa, XLM-RoBERTa and CamemBERT: positions are counted from the padding token on, and padding is not counted.
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

/// ALBERT: embeddings as ELECTRA's; layers share their weights within groups.
pub fn albert(config: &Config, _: usize) -> Result<Transformer> {
    let encoder =
        Encoder { activation: config.activation("hidden_act", "gelu_new")?, ..Encoder::read(config)? };
    let (size, embedded) =
        (encoder.hidden_size, config.size("embedding_size", limits::WIDTH)?.unwrap_or(128));
    let groups = config.size("num_hidden_groups", limits::LAYERS)?.unwrap_or(1);
    let in_group = config.size("inner_group_num", limits::LAYERS)?.unwrap_or(1);
    if groups > encoder.num_layers || encoder.num_layers * in_group > limits::LAYERS {
        bail!(
            Input,
            "{}: `num_hidden_layers` {} must be at least `num_hidden_groups` {groups} and, times `inner_group_num` {in_group}, at \
             most {}",
            config.name(),
            encoder.num_layers,
            limits::LAYERS
        );
    }
    let head = Head {
        module: "predictions.decoder",
        bias: HeadBias::Shared("predictions.bias"),
        transform: Some(Transform {
            dense: Linear::new("predictions.dense", size, embedded, true),
            activation: encoder.activation,
            norm: encoder.norm("predictions.LayerNorm".to_owned()),
        }),
        ..Head::new(config.flag("tie_word_embeddings", true)?)
    };
    let names = |i: usize| {
        // The group, by division of reals as transformers computes it.
        let group = (i as f64 / (encoder.num_layers as f64 / groups as f64)) as usize;
        (0..in_group).map(move |j| format!("encoder.albert_layer_groups.{group}.albert_layers.{j}"))
    };
    let positions = Positions::new(POSITIONS, encoder.max_positions);
    let mut model = encoder.describe(config, "albert.", positions, head)?;
    let attention = encoder.attention(config)?;
    model.layers = (0..encoder.num_layers)
        .flat_map(names)
        .map(|name| encoder.layer(&name, &attention, &ALBERT))
        .collect();
    model.embedding.width = embedded;
    model.embedding.project_sum =
        Some(Linear::new("encoder.embedding_hidden_mapping_in", embedded, size, true));
    Ok(model)
}

/// The names of the modules of a layer.
struct Names {
    projections: [&'static str; 3],
    output: &'static str,
    output_norm: &'static str,
    feed_forward: [&'static str; 2],
    norm: &'static str,
}

const BERT: Names = Names {
    projections: ["attention.self.query", "attention.self.key", "attention.self.value"],
    output: "attention.output.dense",
    output_norm: "attention.output.LayerNorm",
    feed_forward: ["intermediate.dense", "output.dense"],
    norm: "output.LayerNorm",
};
const ALBERT: Names = Names {
    projections: ["attention.query", "attention.key", "attention.value"],
    output: "attention.dense",
    output_norm: "attention.LayerNorm",
    feed_forward: ["ffn", "ffn_output"],
    norm: "full_layer_layer_norm",
};

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
        let hidden_size = self.hidden_size;
        let attention = self.attention(config)?;
        let layer = |i: usize| self.layer(&format!("encoder.layer.{i}"), &attention, &BERT);
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
            layers: (0..self.num_layers).map(layer).collect(),
            norm: None,
            head,
        })
    }

    fn attention(&self, config: &Config) -> Result<Attention> {
        let Self { hidden_size, num_heads, .. } = *self;
        let head_dim = per_head(config, ("hidden_size", hidden_size), ("num_attention_heads", num_heads))?;
        Ok(Attention { mask: Mask::Full, ..Attention::new(num_heads, num_heads, head_dim) })
    }

    fn layer(&self, module: &str, attention: &Attention, names: &Names) -> Layer {
        let (size, width) = (self.hidden_size, self.intermediate_size);
        let name = |name: &str| format!("{module}.{name}");
        let linear = |module: &str, inputs, outputs| Linear::new(&name(module), inputs, outputs, true);
        let attention = SelfAttention::new(
            attention.clone(),
            names.projections.map(|projection| linear(projection, size, size)).into(),
            linear(names.output, size, size),
        );
        let [first, second] = names.feed_forward;
        let mlp =
            plain_mlp(linear(first, size, width), Gating::None(self.activation), linear(second, width, size));
        Layer::of(
            Sublayer::sum_normed(self.norm(name(names.output_norm)), attention),
            Sublayer::sum_normed(self.norm(name(names.norm)), FeedForward::Mlp(mlp)),
        )
    }
}
