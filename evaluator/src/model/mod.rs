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
mod modules;
mod norm;
mod outputs;
mod profile;
mod relative;
mod rope;
mod scratch;
mod spec;
mod transformer;

use invarlock_evidence::format::objective::Objective;
use invarlock_evidence::run_report::InvariantChecks;
use serde_json::{Map, Value};
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Config, Tensor};
use crate::math::products::Products;
use crate::weights::{self, Pages};
pub use example::Example;
use families::FAMILIES;
use invarlock_error::{Result, bail};
pub use modules::{Elements, Module, Panel};
pub use outputs::{Kept, Output};
pub use scratch::{State, Work};

/// The forward pass of a model family, in steps: many examples pass a layer before the weights of the next one are read.
trait ForwardPass: std::fmt::Debug + Send + Sync {
    /// Elements of the state for each row of an example.
    fn state_width(&self) -> usize;

    /// Writes the first state of some examples.
    fn embed(&self, examples: &[Example<'_>], state: &mut State, work: &mut Work);

    /// Replaces the state by the output of a layer.
    fn layer(&self, index: usize, examples: &[Example<'_>], state: &mut State, work: &mut Work);

    /// Keeps the outputs of the normalisations between the last layer and the output projection.
    fn last_outputs(&self, examples: &[Example<'_>], state: &State, work: &mut Work);

    /// The loss of each example from the last state, as [`Model::losses`] defines it.
    fn losses(&self, examples: &[Example<'_>], state: &State, work: &mut Work) -> Vec<f64>;
}

/// A model that is ready to be measured.
#[derive(Debug)]
pub struct Model<'a> {
    forward: Box<dyn ForwardPass + 'a>,
    /// The weights of each layer, and those of the embeddings and the head.
    steps: Vec<Arc<Pages<'a>>>,
    /// The arithmetic of its products.
    products: Products,
    /// Facts about the model.
    pub info: ModelInfo<'a>,
}

/// The arithmetic of a measurement.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arithmetic {
    /// That of matrix products.
    pub products: Products,
    /// Whether inputs of layers stay in single precision where the configuration asks for quantised ones.
    pub weight_only: bool,
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
    /// The weights by module.
    pub modules: Vec<Module<'a>>,
    /// How weights are quantised, in words.
    pub weights: Option<String>,
    /// What the configuration asks to be done with the inputs of layers, in words.
    pub activations: Option<String>,
    /// Tensors of the checkpoint that the model does not use.
    pub unused: Vec<String>,
}

impl<'a> Model<'a> {
    /// `steps` has the weights of each layer and, last, those of the embeddings and the head.
    fn new(
        forward: impl ForwardPass + 'a,
        info: ModelInfo<'a>,
        steps: Vec<Arc<Pages<'a>>>,
        products: Products,
    ) -> Self {
        Self { forward: Box::new(forward), steps, products, info }
    }

    /// Builds a model from an opened checkpoint. Reads headers and small vectors, not the weights.
    ///
    /// `seq_len` is the number of tokens of a padded window; no window may be longer. Some kinds of rotary positions depend on it.
    pub fn load(checkpoint: &'a Checkpoint, seq_len: usize) -> Result<Self> {
        Self::load_with(checkpoint, seq_len, Arithmetic::default())
    }

    /// The same with another arithmetic.
    pub fn load_with(checkpoint: &'a Checkpoint, seq_len: usize, arithmetic: Arithmetic) -> Result<Self> {
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
        transformer::load(checkpoint, &name, &spec, format.as_deref(), arithmetic)
    }

    /// The arithmetic of its products.
    pub fn products(&self) -> Products {
        self.products
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.steps.len() - 1
    }

    /// The weights of each layer and, last, those of the embeddings and the head.
    pub fn steps(&self) -> &[Arc<Pages<'a>>] {
        &self.steps
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> usize {
        self.steps.iter().map(|step| step.bytes()).sum()
    }

    /// Bytes of the state for each row of an example.
    pub fn state_bytes(&self) -> usize {
        self.forward.state_width() * size_of::<f32>()
    }

    /// Writes the first state of some examples, which fit the [`ModelInfo::objective`] and whose ids are below [`ModelInfo::vocab_size`].
    pub fn embed(&self, examples: &[Example<'_>], state: &mut State, work: &mut Work) {
        self.forward.embed(examples, state, work);
    }

    /// Replaces the state by the output of a layer.
    pub fn layer(&self, index: usize, examples: &[Example<'_>], state: &mut State, work: &mut Work) {
        self.forward.layer(index, examples, state, work);
        self.steps[index].peak.see([&*state.hidden, &*state.source].into_iter());
    }

    /// Looks at the activations of all windows that are measured from now on.
    pub fn watch_activations(&self) {
        self.steps.iter().for_each(|step| step.peak.watch());
    }

    /// The largest magnitude of inputs and outputs of linear layers and of the states between layers; none without
    /// [`Self::watch_activations`]. Attention scores do not count.
    pub fn largest_activation(&self) -> Option<f32> {
        self.steps.iter().filter_map(|step| step.peak.largest()).reduce(|one, other| {
            // A NaN counts as larger than every number.
            if other > one || other.is_nan() { other } else { one }
        })
    }

    /// Keeps the outputs of the normalisations between the last layer and the output projection.
    pub fn last_outputs(&self, examples: &[Example<'_>], state: &State, work: &mut Work) {
        self.forward.last_outputs(examples, state, work);
    }

    /// The loss of each example after the last layer: mean cross-entropy over the predicted tokens, in nats; NaN where none is predicted.
    pub fn losses(&self, examples: &[Example<'_>], state: &State, work: &mut Work) -> Vec<f64> {
        self.forward.losses(examples, state, work)
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
