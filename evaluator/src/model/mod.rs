//! Models: their weights, and the forward pass that computes the loss of each window.
//!
//! A family (`families/`) turns a configuration into a description (`spec`) of a decoder, whose forward pass (`decoder/`) all share.

mod adapter;
mod attention;
mod decoder;
mod families;
mod head;
mod loader;
mod matrix;
mod profile;
mod rope;
mod scratch;
mod spec;

use invarlock_evidence::run_report::InvariantChecks;
use serde_json::{Map, Value};

use crate::checkpoint::{Checkpoint, Tensor};
use crate::weights;
use families::FAMILIES;
use invarlock_error::{Result, bail};
pub use scratch::Scratch;

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
    /// The stored tensors of the parameters; tied parameters once.
    pub tensors: Vec<(String, Tensor<'a>)>,
    /// How weights are quantised, in words.
    pub weights: Option<String>,
    /// What the configuration asks to be done with the inputs of layers, and is not done, in words.
    pub activations: Option<String>,
    /// Tensors of the checkpoint that the model does not use.
    pub unused: Vec<String>,
}

impl<'a> Model<'a> {
    fn new(forward: impl ForwardPass + 'a, info: ModelInfo<'a>) -> Self {
        Self { forward: Box::new(forward), info }
    }

    /// Builds a model from an opened checkpoint. Reads headers and small vectors, not the weights.
    ///
    /// `seq_len` is the number of tokens of a padded window; no window may be longer. Some kinds of rotary positions depend on it.
    pub fn load(checkpoint: &'a Checkpoint, seq_len: usize) -> Result<Self> {
        let config = &checkpoint.config;
        let Some(model_type) = config.text("model_type")? else {
            bail!(Input, "{}: `model_type` is missing; supported: {}", config.name(), supported());
        };
        let Some((_, read)) = FAMILIES.iter().find(|(name, _)| *name == model_type) else {
            bail!(
                Unsupported,
                "{}: model_type {model_type:?} is not supported; supported: {}",
                config.name(),
                supported()
            );
        };
        let format = weights::format(checkpoint)?;
        let spec = read(config, seq_len)?;
        config.reject_unread(families::OPTIONS)?;
        decoder::load(checkpoint, model_type, &spec, format.as_deref())
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
