//! One layer of a transformer: attention and feed-forward, each added to the hidden state.

use std::ops::Range;
use std::sync::Arc;

use super::feed_forward::FeedForward;
use crate::math::activation::{add, add_scaled, add2, clip};
use crate::math::gemm::{View, ViewMut};
use crate::math::norm::Norm;
use crate::math::rotary::Rotary;
use crate::model::attention::Attention;
use crate::model::loader::Loader;
use crate::model::matrix::Linear;
use crate::model::scratch::{Work, row_blocks, sized};
use crate::model::spec;
use invarlock_error::Result;

/// A layer with its weights.
#[derive(Debug)]
pub struct Layer<'a> {
    hidden_size: usize,
    attention: Sublayer<SelfAttention<'a>>,
    feed_forward: Sublayer<FeedForward<'a>>,
    parallel: bool,
    normed_residual: bool,
    residual_scale: f32,
}

#[derive(Debug)]
struct Sublayer<T> {
    module: T,
    before: Option<Norm>,
    output: Option<Norm>,
    sum: Option<Norm>,
}

#[derive(Debug)]
struct SelfAttention<'a> {
    attention: Attention,
    qkv: Vec<Linear<'a>>,
    output: Linear<'a>,
    clip: Option<f32>,
    qk_norm: Option<QkNorm>,
    rotary: Option<Arc<Rotary>>,
}

/// Normalisations of queries and keys. Of each head, or a single one of all heads.
#[derive(Debug)]
struct QkNorm {
    query: Vec<Norm>,
    key: Vec<Norm>,
}

impl<'a> Layer<'a> {
    /// Takes the tensors of a layer.
    pub fn load(spec: &spec::Layer, hidden_size: usize, loader: &mut Loader<'a, '_>) -> Result<Self> {
        let attention = SelfAttention::load(&spec.attention.module, loader)?;
        let feed_forward = FeedForward::load(&spec.feed_forward.module, loader)?;
        Ok(Self {
            hidden_size,
            attention: Sublayer::load(&spec.attention, attention, hidden_size, loader)?,
            feed_forward: Sublayer::load(&spec.feed_forward, feed_forward, hidden_size, loader)?,
            parallel: spec.parallel,
            normed_residual: spec.normed_residual,
            residual_scale: spec.residual_scale,
        })
    }

    /// Replaces the hidden states of windows, whose rows are `spans`, by the output of this layer.
    pub fn run(&self, hidden: &mut [f32], spans: &[Range<usize>], work: &mut Work) {
        let size = self.hidden_size;
        let rows = hidden.len() / size;
        let module = &self.attention.module;
        let (qkv_width, width) = (module.attention.qkv_width(), module.attention.width());
        let Work { normed, update, qkv, attended, scores, panel, row, feed_forward } = work;

        let qkv = sized(qkv, rows * qkv_width);
        for block in row_blocks(rows) {
            let x = self.attention.input(&hidden[block.start * size..block.end * size], size, normed);
            let out = &mut qkv[block.start * qkv_width..block.end * qkv_width];
            module.project(View::dense(x, block.len(), size), out, panel);
            if self.normed_residual {
                hidden[block.start * size..block.end * size].copy_from_slice(&normed[..block.len() * size]);
            }
        }
        for span in spans {
            module.finish_qkv(&mut qkv[span.start * qkv_width..span.end * qkv_width], row);
        }
        let attended = sized(attended, rows * width);
        module.attention.run(qkv, spans, scores, attended);

        for block in row_blocks(rows) {
            let n = block.len();
            let hidden = &mut hidden[block.start * size..block.end * size];
            let attended = View::dense(&attended[block.start * width..block.end * width], n, width);
            let mut attend = |hidden: &mut [f32], update: &mut Vec<f32>, panel: &mut Vec<f32>| {
                let update = sized(update, n * size);
                module.output.weight.apply(attended, &mut ViewMut::dense(update, n, size), panel);
                let bias = module.output.bias.as_deref();
                self.attention.add(update, bias, self.residual_scale, hidden, row);
            };
            // The modules of a parallel layer read the same hidden state, so the one that reads it now comes first.
            if !self.parallel {
                attend(hidden, update, panel);
            }
            let before = self.feed_forward.before.as_ref();
            let shared = self.attention.before.as_ref().filter(|_| self.parallel);
            let x = normalised(before.or(shared), hidden, size, normed);
            let output = sized(update, n * size);
            let bias =
                self.feed_forward.module.run(View::dense(x, n, size), output, scores, feed_forward, panel);
            if self.normed_residual {
                hidden.copy_from_slice(&normed[..n * size]);
            }
            self.feed_forward.add(output, bias, self.residual_scale, hidden, &mut feed_forward.row);
            if self.parallel {
                attend(hidden, update, panel);
            }
        }
    }
}

/// The rows after a normalisation, or the rows themselves.
fn normalised<'h>(norm: Option<&Norm>, rows: &'h [f32], width: usize, out: &'h mut Vec<f32>) -> &'h [f32] {
    let Some(norm) = norm else { return rows };
    let out = sized(out, rows.len());
    norm.rows(rows, width, out);
    out
}

impl<T> Sublayer<T> {
    fn load<'a, S>(
        spec: &spec::Sublayer<S>,
        module: T,
        width: usize,
        loader: &mut Loader<'a, '_>,
    ) -> Result<Self> {
        let mut norm = |spec: &Option<spec::Norm>| spec.as_ref().map(|s| loader.norm(s, width)).transpose();
        Ok(Self { module, before: norm(&spec.before)?, output: norm(&spec.output)?, sum: norm(&spec.sum)? })
    }

    /// The module's input.
    fn input<'h>(&self, hidden: &'h [f32], width: usize, normed: &'h mut Vec<f32>) -> &'h [f32] {
        normalised(self.before.as_ref(), hidden, width, normed)
    }

    /// hidden ← hidden + scale · (output + bias), with the normalisations around it; `row` is working memory.
    fn add(
        &self,
        output: &mut [f32],
        bias: Option<&[f32]>,
        scale: f32,
        hidden: &mut [f32],
        row: &mut Vec<f32>,
    ) {
        if self.output.is_none() && self.sum.is_none() && scale == 1.0 {
            match bias {
                None => add(hidden, output),
                Some(bias) => {
                    let rows = hidden.chunks_exact_mut(bias.len()).zip(output.chunks_exact(bias.len()));
                    rows.for_each(|(hidden, output)| add2(hidden, output, bias));
                }
            }
            return;
        }
        if let Some(bias) = bias {
            output.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
        }
        if let Some(norm) = &self.output {
            norm.replace(output, norm.width(), row);
        }
        add_scaled(hidden, output, scale);
        if let Some(norm) = &self.sum {
            norm.replace(hidden, norm.width(), row);
        }
    }
}

impl<'a> SelfAttention<'a> {
    fn load(spec: &spec::SelfAttention, loader: &mut Loader<'a, '_>) -> Result<Self> {
        let mut attention = spec.attention.clone();
        if let Some(name) = &spec.sinks {
            attention.sinks = Some(loader.values(name, &[attention.num_heads])?);
        }
        let qk_norm = match &spec.qk_norm {
            None => None,
            Some(spec::QkNorm { query, key, span }) => {
                let mut norms = |norm, heads| load_qk_norm(norm, *span, heads, attention.head_dim, loader);
                let query = norms(query, attention.num_heads)?;
                Some(QkNorm { query, key: norms(key, attention.num_kv_heads)? })
            }
        };
        Ok(Self {
            qkv: spec.qkv.iter().map(|linear| loader.linear(linear)).collect::<Result<_>>()?,
            output: loader.linear(&spec.output)?,
            clip: spec.clip,
            rotary: spec.rotary.clone(),
            qk_norm,
            attention,
        })
    }

    /// Queries, keys and values of some rows, without biases.
    fn project(&self, x: View<'_>, out: &mut [f32], panel: &mut Vec<f32>) {
        let mut view = ViewMut::dense(out, x.rows(), self.attention.qkv_width());
        let mut first = 0;
        for projection in &self.qkv {
            let last = first + projection.weight.outputs();
            projection.weight.apply(x, &mut view.columns(first..last), panel);
            first = last;
        }
    }

    /// Adds biases to the queries, keys and values of one window, normalises, limits and rotates them.
    fn finish_qkv(&self, qkv: &mut [f32], buffer: &mut Vec<f32>) {
        let Attention { num_heads, num_kv_heads, head_dim, .. } = self.attention;
        for (position, row) in qkv.chunks_exact_mut(self.attention.qkv_width()).enumerate() {
            let mut first = 0;
            for projection in &self.qkv {
                let last = first + projection.weight.outputs();
                if let Some(bias) = &projection.bias {
                    add(&mut row[first..last], bias);
                }
                first = last;
            }
            let queries = (0..num_heads).map(|head| self.attention.query_column(head));
            let keys = (0..num_kv_heads).map(|kv| self.attention.key_column(kv));
            if let Some(QkNorm { query, key }) = &self.qk_norm {
                normalise(query, row, queries.clone(), head_dim, buffer);
                normalise(key, row, keys.clone(), head_dim, buffer);
            }
            if let Some(limit) = self.clip {
                clip(row, limit);
            }
            if let Some(rotary) = &self.rotary {
                for column in queries.chain(keys) {
                    rotary.rotate(&mut row[column..column + head_dim], position);
                }
            }
        }
    }
}

/// Normalisations of `heads` heads: one for each head, or a single one of all.
fn load_qk_norm(
    norm: &spec::Norm,
    span: spec::NormSpan,
    heads: usize,
    head_dim: usize,
    loader: &mut Loader<'_, '_>,
) -> Result<Vec<Norm>> {
    Ok(match span {
        spec::NormSpan::All => vec![loader.norm(norm, heads * head_dim)?],
        spec::NormSpan::Head => vec![loader.norm(norm, head_dim)?; heads],
        spec::NormSpan::HeadOwn => loader.norm_of_shape(norm, &[heads, head_dim])?.split(head_dim),
        spec::NormSpan::HeadModules => {
            let one = |head| spec::Norm::new(format!("{}.{head}", norm.module), norm.kind, norm.epsilon);
            (0..heads).map(|head| loader.norm(&one(head), head_dim)).collect::<Result<_>>()?
        }
    })
}

/// Normalises the heads that start at `columns` of a row. A single normalisation of all heads needs them side by side.
fn normalise(
    norms: &[Norm],
    row: &mut [f32],
    columns: impl Iterator<Item = usize>,
    head_dim: usize,
    buffer: &mut Vec<f32>,
) {
    for (norm, column) in norms.iter().zip(columns) {
        let width = norm.width();
        debug_assert!(width == head_dim || norms.len() == 1, "one normalisation of a head or of all");
        norm.replace(&mut row[column..column + width], width, buffer);
    }
}
