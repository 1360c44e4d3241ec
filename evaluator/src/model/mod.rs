//! Model families: their weights, and the forward pass that computes the loss of each window.
//!
//! To add a family, write its file with a `load` function and an implementation of `ForwardPass`, and add its
//! `model_type`s to `FAMILIES`.

mod attention;
mod decoder;
mod gpt2;
mod head;
mod loader;
mod matrix;
mod scratch;

use invarlock_evidence::run_report::InvariantChecks;
use serde_json::{Map, Value, json};

use crate::checkpoint::{Checkpoint, FLOAT_WEIGHTS, Tensor};
use invarlock_error::{Context as _, Result, bail};
pub use scratch::Scratch;

/// Builds a model from an opened checkpoint.
type Load = for<'a> fn(&'a Checkpoint) -> Result<Model<'a>>;

/// Every supported `model_type` and its constructor.
const FAMILIES: &[(&str, Load)] =
    &[("gpt2", gpt2::load), ("llama", decoder::load), ("mistral", decoder::load), ("qwen2", decoder::load)];

/// Options of checkpoints with quantised storage.
const QUANTIZED_STORAGE: [&str; 2] = ["quantization_config", "compression_config"];

/// Options that no family implements.
const UNSUPPORTED_OPTIONS: &[&str] = &[
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

/// The forward pass of a model family.
trait ForwardPass: std::fmt::Debug + Send + Sync {
    /// The loss of each window, as [`Model::losses`] defines it.
    fn losses(&self, windows: &[&[u32]], scratch: &mut Scratch) -> Vec<f64>;
}

/// A model that is ready to be measured.
#[derive(Debug)]
pub struct Model<'a> {
    forward: Box<dyn ForwardPass + 'a>,
    /// Facts about the model.
    pub info: ModelInfo<'a>,
}

/// Facts about a model, for its report.
#[derive(Debug)]
pub struct ModelInfo<'a> {
    /// `model_type` of the configuration.
    pub model_type: String,
    /// Number of tokens in the embedding.
    pub vocab_size: usize,
    /// Largest number of tokens in a window, where the model has a limit.
    pub max_positions: Option<usize>,
    /// Whether windows start with the token that begins a sequence, where the tokenizer has one. Upstream adds it for
    /// model types with rotary positions.
    pub starts_with_bos: bool,
    /// Values that the invariants guard compares.
    pub checks: InvariantChecks,
    /// `model_profile` of the report.
    pub profile: Map<String, Value>,
    /// Each parameter by its name; tied parameters once.
    pub parameters: Vec<(String, Tensor<'a>)>,
    /// Tensors of the checkpoint that the model does not use.
    pub unused: Vec<String>,
}

impl<'a> Model<'a> {
    fn new(forward: impl ForwardPass + 'a, info: ModelInfo<'a>) -> Self {
        Self { forward: Box::new(forward), info }
    }

    /// Builds a model from an opened checkpoint. Reads headers and small vectors, not the weights.
    pub fn load(checkpoint: &'a Checkpoint) -> Result<Self> {
        let config = &checkpoint.config;
        let Some(model_type) = config.text("model_type")? else {
            bail!(Input, "{}: `model_type` is missing; supported: {}", config.name(), supported());
        };
        let Some((_, load)) = FAMILIES.iter().find(|(name, _)| *name == model_type) else {
            bail!(
                Unsupported,
                "{}: model_type {model_type:?} is not supported; supported: {}",
                config.name(),
                supported()
            );
        };
        for option in QUANTIZED_STORAGE {
            let hint = format!("{FLOAT_WEIGHTS}; remove `{option}` from config.json");
            config.reject_options(&[option]).hint(hint)?;
        }
        config.reject_options(UNSUPPORTED_OPTIONS)?;
        load(checkpoint)
    }

    /// The loss of each window: mean cross-entropy over all tokens but the first, in nats.
    ///
    /// A window consists of real tokens only, at least two, with ids below [`ModelInfo::vocab_size`].
    pub fn losses(&self, windows: &[&[u32]], scratch: &mut Scratch) -> Vec<f64> {
        self.forward.losses(windows, scratch)
    }
}

/// The supported model types, for messages.
fn supported() -> String {
    FAMILIES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// `model_profile` as upstream writes it for a family.
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
