//! Models: their weights, and the forward pass that computes the loss of each window.
//!
//! A family (`families/`) turns a configuration into a description (`spec`) of a transformer, whose forward pass (`transformer/`) all share.

mod adapter;
mod attention;
mod example;
mod families;
mod head;
mod loader;
mod matrix;
mod profile;
mod relative;
mod rope;
mod scratch;
mod spec;
mod transformer;

use invarlock_evidence::format::objective::Objective;
use invarlock_evidence::run_report::InvariantChecks;
use serde_json::{Map, Value};

use crate::checkpoint::{Checkpoint, Config, Tensor};
use crate::weights;
pub use example::Example;
use families::FAMILIES;
use invarlock_error::{Result, bail};
pub use scratch::Scratch;

/// The forward pass of a model family.
trait ForwardPass: std::fmt::Debug + Send + Sync {
    /// The loss of each example, as [`Model::losses`] defines it.
    fn losses(&self, examples: &[Example<'_>], scratch: &mut Scratch) -> Vec<f64>;
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
    /// What the model predicts, which decides what an [`Example`] must contain.
    pub objective: Objective,
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
        let whole = &checkpoint.config;
        let outer = model_type(whole)?;
        let text = match families::WRAPPERS.contains(&outer) {
            true => whole.object("text_config")?,
            false => None,
        };
        let config = text.as_ref().unwrap_or(whole);
        let inner = model_type(config)?;
        let Some((_, read)) = FAMILIES.iter().find(|(name, _)| *name == inner) else {
            bail!(
                Unsupported,
                "{}: {} {inner:?} is not supported; supported: {}",
                config.name(),
                config.member("model_type"),
                supported()
            );
        };
        let format = weights::format(checkpoint)?;
        let spec = read(config, seq_len)?;
        config.reject_unread(families::OPTIONS)?;
        let name = match text.is_some() {
            true => format!("{inner} in {outer}"),
            false => inner.to_owned(),
        };
        transformer::load(checkpoint, &name, &spec, format.as_deref())
    }

    /// The loss of each example: mean cross-entropy over the predicted tokens, in nats; NaN where none is predicted.
    ///
    /// An example fits the [`ModelInfo::objective`], and its ids are below [`ModelInfo::vocab_size`].
    pub fn losses(&self, examples: &[Example<'_>], scratch: &mut Scratch) -> Vec<f64> {
        self.forward.losses(examples, scratch)
    }
}

/// `model_type` of a configuration.
fn model_type(config: &Config) -> Result<&str> {
    match config.text("model_type")? {
        Some(model_type) => Ok(model_type),
        None => bail!(
            Input,
            "{}: `{}` is missing; supported: {}",
            config.name(),
            config.member("model_type"),
            supported()
        ),
    }
}

/// The supported model types, for messages.
fn supported() -> String {
    let families = FAMILIES.iter().map(|(name, _)| *name);
    families.chain(families::WRAPPERS.iter().copied()).collect::<Vec<_>>().join(", ")
}
