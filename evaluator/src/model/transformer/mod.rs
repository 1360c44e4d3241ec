//! The forward pass that all families share: from token ids to the loss of each window. What differs between families is data, see [`super::spec`].

mod feed_forward;
mod layer;

use super::adapter::{Lora, check_used};
use super::head::Head;
use super::loader::Loader;
use super::matrix::{Layout, Linear, Matrix};
use super::scratch::{Scratch, row_blocks, sized, spans};
use super::{Example, ForwardPass, Model, ModelInfo, spec};
use crate::checkpoint::Checkpoint;
use crate::math::activation::{add, scale};
use crate::math::gemm::{View, ViewMut};
use crate::math::norm::Norm;
use crate::weights::Format;
use invarlock_error::Result;
use invarlock_evidence::format::objective::Objective;
use layer::Layer;

/// A language model with its weights.
#[derive(Debug)]
struct Transformer<'a> {
    hidden_size: usize,
    embedding: Embedding<'a>,
    layers: Vec<Layer<'a>>,
    norm: Option<Norm>,
    /// Absent where it is the token embedding.
    lm_head: Option<Matrix<'a>>,
    head_bias: Option<Vec<f32>>,
    project_out: Option<Linear<'a>>,
    logit_scale: f32,
    softcap: Option<f32>,
}

#[derive(Debug)]
struct Embedding<'a> {
    tokens: Matrix<'a>,
    width: usize,
    scale: f32,
    project_in: Option<Linear<'a>>,
    positions: Option<Positions<'a>>,
    norm: Option<Norm>,
}

#[derive(Debug)]
struct Positions<'a> {
    table: Matrix<'a>,
    first: usize,
}

/// Takes the tensors that a model needs. Reads headers and small vectors, not the weights.
pub fn load<'a>(
    checkpoint: &'a Checkpoint,
    model_type: &str,
    spec: &spec::Transformer,
    format: Option<&dyn Format>,
) -> Result<Model<'a>> {
    let spec::Transformer { hidden_size, vocab_size, .. } = *spec;
    let lora = checkpoint.adapter.as_ref().map(|adapter| Lora::read(&adapter.config)).transpose()?;
    let mut loader = Loader::new(checkpoint, format, lora.as_ref(), spec.prefix, spec.probe());
    let (tokens, lm_head) = loader.embeddings(&spec.embedding, &spec.head, vocab_size)?;
    let linear = |loader: &mut Loader<'a, '_>, spec: &Option<spec::Linear>| {
        spec.as_ref().map(|spec| loader.linear(spec)).transpose()
    };
    let norm = |loader: &mut Loader<'a, '_>, spec: &Option<spec::Norm>| {
        spec.as_ref().map(|spec| loader.norm(spec, hidden_size)).transpose()
    };
    let mut tables = vec![(spec.embedding.tokens, vocab_size)];
    let positions = match &spec.embedding.positions {
        None => None,
        Some(spec::Positions { module, rows, first }) => {
            tables.push((*module, *rows));
            let table = loader.matrix(&format!("{module}.weight"), hidden_size, *rows, Layout::OutIn)?;
            Some(Positions { table, first: *first })
        }
    };
    let embedding = Embedding {
        tokens,
        width: spec.embedding.width,
        scale: spec.embedding.scale,
        project_in: linear(&mut loader, &spec.embedding.project_in)?,
        positions,
        norm: norm(&mut loader, &spec.embedding.norm)?,
    };
    let layers = spec.layers.iter().map(|layer| Layer::load(layer, hidden_size, &mut loader));
    let layers = layers.collect::<Result<_>>()?;
    let transformer = Transformer {
        hidden_size,
        embedding,
        layers,
        norm: norm(&mut loader, &spec.norm)?,
        head_bias: match spec.head.bias {
            true => Some(loader.head_bias(&spec.head, vocab_size)?),
            false => None,
        },
        project_out: linear(&mut loader, &spec.head.project_out)?,
        logit_scale: spec.head.scale,
        softcap: spec.head.softcap,
        lm_head,
    };
    let loaded = loader.finish(transformer.lm_head.is_none(), vocab_size, &tables);
    if let Some(adapter) = &checkpoint.adapter {
        check_used(adapter, &loaded.unused)?;
    }
    let info = ModelInfo {
        model_type: model_type.to_owned(),
        objective: Objective::Causal,
        vocab_size,
        max_positions: spec.max_positions,
        starts_with_bos: spec.profile.starts_with_bos(),
        checks: loaded.checks,
        profile: spec.profile.members(),
        tensors: loaded.tensors,
        weights: stored_weights(format, lora.as_ref()),
        activations: format.and_then(|format| format.activations()),
        unused: loaded.unused,
    };
    Ok(Model::new(transformer, info))
}

/// How weights are stored, in words. None where all are plain numbers.
fn stored_weights(format: Option<&dyn Format>, lora: Option<&Lora>) -> Option<String> {
    let words = [format.map(|format| format.describe()), lora.map(Lora::describe)];
    words.into_iter().flatten().reduce(|all, one| format!("{all}; {one}"))
}

impl ForwardPass for Transformer<'_> {
    fn losses(&self, examples: &[Example<'_>], scratch: &mut Scratch) -> Vec<f64> {
        let windows: Vec<&[u32]> = examples.iter().map(|example| example.tokens).collect();
        let spans = spans(&windows);
        let rows = spans.last().map_or(0, |span| span.end);
        let Scratch { hidden, work } = scratch;
        let hidden = sized(hidden, rows * self.hidden_size);
        self.embedding.run(&windows, self.hidden_size, hidden, &mut work.normed, &mut work.panel);
        for layer in &self.layers {
            layer.run(hidden, &spans, work);
        }
        let head = Head {
            norm: self.norm.as_ref(),
            project_out: self.project_out.as_ref(),
            lm_head: self.lm_head.as_ref().unwrap_or(&self.embedding.tokens),
            bias: self.head_bias.as_deref(),
            scale: self.logit_scale,
            softcap: self.softcap,
            hidden_size: self.hidden_size,
        };
        let predictions: Vec<_> = examples.iter().map(Example::next_tokens).collect();
        head.losses(&predictions, &spans, hidden, work)
    }
}

impl Embedding<'_> {
    /// The first hidden states; `rows` and `panel` are working memory.
    fn run(
        &self,
        windows: &[&[u32]],
        hidden_size: usize,
        hidden: &mut [f32],
        rows: &mut Vec<f32>,
        panel: &mut Vec<f32>,
    ) {
        let ids: Vec<u32> = windows.concat();
        match &self.project_in {
            None => self.lookup(&ids, hidden),
            Some(project_in) => {
                for block in row_blocks(ids.len()) {
                    let rows = sized(rows, block.len() * self.width);
                    self.lookup(&ids[block.clone()], rows);
                    let out = &mut hidden[block.start * hidden_size..block.end * hidden_size];
                    let x = View::dense(rows, block.len(), self.width);
                    project_in.weight.apply(x, &mut ViewMut::dense(out, block.len(), hidden_size), panel);
                }
            }
        }
        if let Some(Positions { table, first }) = &self.positions {
            let embedding = sized(rows, hidden_size);
            let positions = windows.iter().flat_map(|window| 0..window.len());
            for (row, position) in hidden.chunks_exact_mut(hidden_size).zip(positions) {
                table.row(first + position, embedding);
                add(row, embedding);
            }
        }
        if let Some(norm) = &self.norm {
            norm.replace(hidden, hidden_size, rows);
        }
    }

    /// The embedding of each token, scaled.
    fn lookup(&self, ids: &[u32], out: &mut [f32]) {
        for (row, id) in out.chunks_exact_mut(self.width).zip(ids) {
            self.tokens.row(*id as usize, row);
            if self.scale != 1.0 {
                scale(row, self.scale);
            }
        }
    }
}
