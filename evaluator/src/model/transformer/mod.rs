//! The forward pass that all families share: from token ids to the loss of each example. What differs between families is data, see
//! [`super::spec`].

mod cross_attention;
mod embedding;
mod feed_forward;
mod layer;
mod projections;
mod self_attention;

use std::ops::Range;
use std::sync::Arc;

use super::adapter::{Lora, check_used};
use super::example::{Prediction, predicted};
use super::head::{Head, Transform};
use super::loader::Loader;
use super::matrix::Matrix;
use super::norm::Norm;
use super::scratch::{State, Work, sized, spans};
use super::{Arithmetic, Example, ForwardPass, Model, ModelInfo, spec};
use crate::checkpoint::Checkpoint;
use crate::weights::{Format, Pages};
use cross_attention::Source;
use embedding::Embedding;
use invarlock_error::{Result, bail};
use invarlock_evidence::format::objective::Objective;
use layer::Layer;

/// Names of the first hidden states, of the model or its decoder and of the encoder, for the guards.
const EMBEDDINGS: &str = "embeddings";
const ENCODER_EMBEDDINGS: &str = "encoder.embeddings";

/// The weights of each step of the forward pass.
type Steps<'a> = Vec<Arc<Pages<'a>>>;

/// A language model with its weights.
#[derive(Debug)]
struct Transformer<'a> {
    objective: Objective,
    hidden_size: usize,
    encoder: Option<Encoder<'a>>,
    embedding: Embedding<'a>,
    layers: Vec<Layer<'a>>,
    norm: Option<Norm>,
    /// Absent where it is the token embedding.
    lm_head: Option<Matrix<'a>>,
    head_bias: Option<Vec<f32>>,
    transform: Option<Transform<'a>>,
    logit_scale: f32,
    softcap: Option<f32>,
}

/// The part of a sequence-to-sequence model that reads the source.
#[derive(Debug)]
struct Encoder<'a> {
    embedding: Embedding<'a>,
    layers: Vec<Layer<'a>>,
    norm: Option<Norm>,
    start_token: u32,
    pad_token: u32,
}

/// Takes the tensors that a model needs. Reads headers and small vectors, not the weights.
pub fn load<'a>(
    checkpoint: &'a Checkpoint,
    model_type: &str,
    spec: &spec::Transformer,
    format: Option<&dyn Format>,
    arithmetic: Arithmetic,
) -> Result<Model<'a>> {
    let lora = checkpoint.adapter.as_ref().map(|adapter| Lora::read(&adapter.config)).transpose()?;
    let mut loader = Loader::new(checkpoint, format, lora.as_ref(), arithmetic, (spec.prefix, spec.probe()));
    check_parts(checkpoint, spec, &loader)?;
    let mut steps = Vec::new();
    let transformer = Transformer::load(spec, &mut loader, &mut steps)?;
    steps.push(loader.last_step(&steps));
    let loaded = loader.finish(transformer.lm_head.is_none(), spec.vocab_size, &embeddings(spec));
    if let Some(adapter) = &checkpoint.adapter {
        check_used(adapter, &loaded.unused)?;
    }
    let info = ModelInfo {
        model_type: model_type.to_owned(),
        objective: transformer.objective,
        vocab_size: spec.vocab_size,
        max_positions: spec.max_positions,
        starts_with_bos: spec.profile.starts_with_bos(),
        checks: loaded.checks,
        profile: spec.profile.members(),
        tensors: loaded.tensors,
        modules: loaded.modules,
        weights: stored_weights(format, lora.as_ref()),
        activations: format.and_then(|format| format.activations()),
        unused: loaded.unused,
    };
    Ok(Model::new(transformer, info, steps, arithmetic.products))
}

/// An error for a checkpoint without the head, or without the decoder, that its objective needs: transformers would fill them with random
/// numbers.
fn check_parts(checkpoint: &Checkpoint, spec: &spec::Transformer, loader: &Loader<'_, '_>) -> Result<()> {
    let needed = match (&spec.head.transform, &spec.source) {
        (Some(transform), _) => {
            Some((&transform.dense.weight, loader.contains_beside(&transform.dense.weight)))
        }
        (None, Some(_)) => spec.layers.first().map(|layer| {
            let weight = &layer.attention.module.output.weight;
            (weight, loader.contains(weight))
        }),
        (None, None) => None,
    };
    let Some((tensor, false)) = needed else { return Ok(()) };
    let config = &checkpoint.config;
    let architectures = config.get("architectures").and_then(serde_json::Value::as_array);
    let architecture = architectures.and_then(|names| names.first()?.as_str()).unwrap_or("not named");
    bail!(
        Unsupported,
        "{}: the checkpoint (architecture: {architecture}) is not a whole {}: the tensor {tensor} is missing",
        config.name(),
        spec.objective().describe()
    )
}

/// The embeddings with their numbers of rows, for the invariants guard.
fn embeddings(spec: &spec::Transformer) -> Vec<(&str, usize)> {
    let mut found = vec![(spec.embedding.tokens, spec.vocab_size)];
    found.extend(spec.embedding.copies.iter().map(|copy| (*copy, spec.vocab_size)));
    let encoder = spec.source.as_ref();
    let stacks = encoder.map(|source| (&source.embedding, &source.layers));
    for (embedding, layers) in stacks.into_iter().chain([(&spec.embedding, &spec.layers)]) {
        found.extend(embedding.token_types);
        found.extend(embedding.positions.as_ref().map(|positions| (positions.module, positions.rows)));
        let relative = layers.iter().filter_map(|layer| layer.attention.module.relative.as_ref());
        found.extend(relative.map(|relative| (relative.module.as_str(), relative.buckets.count)));
    }
    found
}

/// Takes the tensors of a stack of layers, each of which is a step.
fn load_layers<'a>(
    layers: &[spec::Layer],
    hidden_size: usize,
    loader: &mut Loader<'a, '_>,
    steps: &mut Steps<'a>,
) -> Result<Vec<Layer<'a>>> {
    let mut relative = None;
    let load = |layer| {
        let (layer, pages) = loader.step(|loader| Layer::load(layer, hidden_size, &mut relative, loader))?;
        steps.push(pages);
        Ok(layer)
    };
    layers.iter().map(load).collect()
}

impl<'a> Transformer<'a> {
    fn load(spec: &spec::Transformer, loader: &mut Loader<'a, '_>, steps: &mut Steps<'a>) -> Result<Self> {
        let spec::Transformer { hidden_size, vocab_size, .. } = *spec;
        let (tokens, lm_head) = loader.embeddings(&spec.embedding, &spec.head, vocab_size)?;
        let norm = |loader: &mut Loader<'a, '_>, norm: &Option<spec::Norm>| {
            norm.as_ref().map(|norm| loader.norm(norm, hidden_size)).transpose()
        };
        let encoder = match &spec.source {
            None => None,
            Some(source) => Some(Encoder {
                embedding: Embedding::load(&source.embedding, tokens.clone(), hidden_size, loader)?,
                layers: load_layers(&source.layers, hidden_size, loader, steps)?,
                norm: norm(loader, &source.norm)?,
                start_token: source.start_token,
                pad_token: source.pad_token,
            }),
        };
        Ok(Self {
            objective: spec.objective(),
            hidden_size,
            encoder,
            embedding: Embedding::load(&spec.embedding, tokens, hidden_size, loader)?,
            layers: load_layers(&spec.layers, hidden_size, loader, steps)?,
            norm: norm(loader, &spec.norm)?,
            head_bias: loader.head_bias(&spec.head, lm_head.is_none(), vocab_size)?,
            transform: load_transform(&spec.head, loader)?,
            logit_scale: spec.head.scale,
            softcap: spec.head.softcap,
            lm_head,
        })
    }

    /// What follows the last layer.
    fn head(&self) -> Head<'_, 'a> {
        Head {
            norm: self.norm.as_ref(),
            transform: self.transform.as_ref(),
            lm_head: self.lm_head.as_ref().unwrap_or_else(|| self.embedding.tokens()),
            bias: self.head_bias.as_deref(),
            scale: self.logit_scale,
            softcap: self.softcap,
            hidden_size: self.hidden_size,
        }
    }
}

/// The step between the last normalisation and the output projection.
fn load_transform<'a>(head: &spec::Head, loader: &mut Loader<'a, '_>) -> Result<Option<Transform<'a>>> {
    if let Some(spec::Transform { dense, activation, norm }) = &head.transform {
        return loader.beside(|loader| {
            let dense = loader.linear(dense)?;
            let norm = loader.norm(norm, dense.weight.outputs())?;
            Ok(Some(Transform { dense, activation: Some(*activation), norm: Some(norm) }))
        });
    }
    let project_out = head.project_out.as_ref().map(|linear| loader.linear(linear)).transpose()?;
    Ok(project_out.map(|dense| Transform { dense, activation: None, norm: None }))
}

/// How weights are stored, in words. None where all are plain numbers.
fn stored_weights(format: Option<&dyn Format>, lora: Option<&Lora>) -> Option<String> {
    let words = [format.map(|format| format.describe()), lora.map(Lora::describe)];
    words.into_iter().flatten().reduce(|all, one| format!("{all}; {one}"))
}

impl ForwardPass for Transformer<'_> {
    fn state_width(&self) -> usize {
        self.hidden_size * if self.encoder.is_some() { 2 } else { 1 }
    }

    fn embed(&self, examples: &[Example<'_>], state: &mut State, work: &mut Work) {
        let size = self.hidden_size;
        let State { hidden, source } = state;
        let tokens: Vec<&[u32]> = examples.iter().map(|example| example.tokens).collect();
        let Some(encoder) = &self.encoder else {
            let hidden = rows_of(hidden, &spans(&tokens), size);
            self.embedding.run(&tokens, size, hidden, work);
            return work.outputs.add(EMBEDDINGS, hidden, size, None);
        };
        let source = rows_of(source, &spans(&tokens), size);
        encoder.embedding.run(&tokens, size, source, work);
        work.outputs.add(ENCODER_EMBEDDINGS, source, size, None);
        work.outputs.next_run();
        let targets: Vec<Vec<u32>> =
            examples.iter().map(|example| encoder.shifted(labels(example))).collect();
        let targets: Vec<&[u32]> = targets.iter().map(Vec::as_slice).collect();
        let hidden = rows_of(hidden, &spans(&targets), size);
        self.embedding.run(&targets, size, hidden, work);
        work.outputs.add(EMBEDDINGS, hidden, size, None);
    }

    fn layer(&self, index: usize, examples: &[Example<'_>], state: &mut State, work: &mut Work) {
        let size = self.hidden_size;
        let State { hidden, source } = state;
        let read = read(examples);
        let Some(encoder) = &self.encoder else {
            return self.layers[index].run(rows_of(hidden, &read, size), &read, None, work);
        };
        let source = rows_of(source, &read, size);
        match index.checked_sub(encoder.layers.len()) {
            None => encoder.layer(index, source, &read, work),
            Some(index) => {
                let spans = written(examples);
                let source = Source { hidden: source, spans: &read };
                self.layers[index].run(rows_of(hidden, &spans, size), &spans, Some(source), work);
            }
        }
    }

    fn last_outputs(&self, examples: &[Example<'_>], state: &State, work: &mut Work) {
        let spans = if self.encoder.is_some() { written(examples) } else { read(examples) };
        let rows = spans.last().map_or(0, |span| span.end);
        self.head().keep(&state.hidden[..rows * self.hidden_size], work);
    }

    fn losses(&self, examples: &[Example<'_>], state: &State, work: &mut Work) -> Vec<f64> {
        let spans = if self.encoder.is_some() { written(examples) } else { read(examples) };
        let predictions: Vec<_> = examples.iter().map(|example| self.predictions(example)).collect();
        self.head().losses(&predictions, &spans, &state.hidden, work)
    }
}

/// The rows of the tokens of each example.
fn read(examples: &[Example<'_>]) -> Vec<Range<usize>> {
    spans(&examples.iter().map(|example| example.tokens).collect::<Vec<_>>())
}

/// The rows of the labels of each example.
fn written(examples: &[Example<'_>]) -> Vec<Range<usize>> {
    spans(&examples.iter().map(labels).collect::<Vec<_>>())
}

/// The rows of these spans.
fn rows_of<'h>(state: &'h mut Vec<f32>, spans: &[Range<usize>], size: usize) -> &'h mut [f32] {
    sized(state, spans.last().map_or(0, |span| span.end) * size)
}

impl Transformer<'_> {
    /// What the model predicts.
    fn predictions(&self, example: &Example<'_>) -> Vec<Prediction> {
        match self.objective {
            Objective::Causal => example.next_tokens(),
            _ => predicted(labels(example)),
        }
    }
}

/// The labels of an example, whose loss is NaN without them.
fn labels<'w>(example: &Example<'w>) -> &'w [i64] {
    example.labels.unwrap_or_default()
}

impl Encoder<'_> {
    /// Runs a layer; the last one is followed by the normalisation.
    fn layer(&self, index: usize, source: &mut [f32], spans: &[Range<usize>], work: &mut Work) {
        self.layers[index].run(source, spans, None, work);
        if let Some(norm) = self.norm.as_ref().filter(|_| index + 1 == self.layers.len()) {
            norm.replace(source, norm.width(), &mut work.row);
            norm.keep(source, &mut work.outputs);
        }
    }

    /// What the decoder reads: the labels, shifted by one.
    fn shifted(&self, labels: &[i64]) -> Vec<u32> {
        let read = labels.iter().map(|label| u32::try_from(*label).unwrap_or(self.pad_token));
        std::iter::once(self.start_token).chain(read).take(labels.len()).collect()
    }
}
