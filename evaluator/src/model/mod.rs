//! Models: weights and the forward pass that gives each window its loss.

mod attention;
mod decoder;
mod gpt2;
mod head;
mod loader;
mod matrix;
mod scratch;

use invarlock_evidence::run_report::InvariantChecks;
use serde_json::{Map, Value, json};

use crate::checkpoint::{Checkpoint, Tensor};
use invarlock_error::{Result, bail};
pub use scratch::Scratch;

/// Model types that are known, for messages.
pub const KNOWN: &str = "gpt2, llama, mistral, qwen2";

/// Options that none of our models implements, whichever configuration names them.
const REFUSED: &[&str] = &[
    "quantization_config",
    "compression_config",
    "add_cross_attention",
    "is_encoder_decoder",
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "use_qk_norm",
];

/// A model ready to measure.
#[derive(Debug)]
pub struct Model<'a> {
    kind: Kind<'a>,
    /// What it consists of.
    pub facts: ModelInfo<'a>,
}

#[derive(Debug)]
enum Kind<'a> {
    Gpt2(gpt2::Gpt2<'a>),
    Decoder(decoder::Decoder<'a>),
}

/// What a report says of a model.
#[derive(Debug)]
pub struct ModelInfo<'a> {
    /// `model_type` of the configuration.
    pub model_type: String,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Tokens a window may have, where the model has a limit.
    pub positions: Option<usize>,
    /// Whether windows start with the token that begins a sequence, where the tokenizer has one: upstream adds it
    /// for the model types with rotary positions.
    pub starts_with_bos: bool,
    /// What the invariants guard compares.
    pub checks: InvariantChecks,
    /// `model_profile` of the report.
    pub profile: Map<String, Value>,
    /// Each parameter by its name; tied ones once.
    pub parameters: Vec<(String, Tensor<'a>)>,
    /// Tensors of the checkpoint that the model has no use for.
    pub unused: Vec<String>,
}

impl<'a> Model<'a> {
    /// Builds a model from an opened checkpoint. Reads headers and small vectors, not the weights.
    pub fn load(checkpoint: &'a Checkpoint) -> Result<Self> {
        let config = &checkpoint.config;
        let Some(model_type) = config.text("model_type")? else {
            bail!(Input, "{}: `model_type` is missing; known types: {KNOWN}", config.name());
        };
        match model_type {
            "gpt2" => {
                config.refuse(REFUSED)?;
                gpt2::load(checkpoint)
            }
            "llama" | "mistral" | "qwen2" => {
                config.refuse(REFUSED)?;
                decoder::load(checkpoint)
            }
            other => bail!(
                Unsupported,
                "{}: model_type {other:?} is not known to this evaluator; known types: {KNOWN}",
                config.name()
            ),
        }
    }

    /// The loss of each window: mean cross-entropy over all tokens but the first, in nats.
    ///
    /// Windows are real tokens only, at least two each, ids below [`ModelInfo::vocab`].
    pub fn losses(&self, windows: &[&[u32]], scratch: &mut Scratch) -> Vec<f64> {
        match &self.kind {
            Kind::Gpt2(model) => model.losses(windows, scratch),
            Kind::Decoder(model) => model.losses(windows, scratch),
        }
    }
}

/// `model_profile` as upstream writes it for this family.
fn profile(
    family: &str,
    invariant: &str,
    lint: &str,
    attention: &[&str],
    ffn: &[&str],
) -> Map<String, Value> {
    let profile = json!({
        "family": family,
        "default_loss": "causal",
        "module_selectors": { "attention": attention, "ffn": ffn },
        "invariants": [invariant],
        "cert_lints": [{ "type": "equals", "path": "primary_metric.kind", "value": "ppl_causal", "message": lint }],
    });
    match profile {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
