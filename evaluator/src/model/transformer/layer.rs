//! One layer of a transformer: attention and feed-forward, each added to the hidden state.

use std::ops::Range;
use std::sync::Arc;

use super::cross_attention::{CrossAttention, Source};
use super::feed_forward::FeedForward;
use super::self_attention::SelfAttention;
use crate::math::activation::{add, add_scaled, add2, scale};
use crate::math::gemm::{View, ViewMut};
use crate::model::loader::Loader;
use crate::model::matrix::Linear;
use crate::model::norm::Norm;
use crate::model::outputs::Outputs;
use crate::model::relative::RelativeBias;
use crate::model::scratch::{Work, row_blocks, sized};
use crate::model::spec;
use invarlock_error::Result;

/// A layer with its weights.
#[derive(Debug)]
pub struct Layer<'a> {
    hidden_size: usize,
    attention: Sublayer<SelfAttention<'a>>,
    cross: Option<Sublayer<CrossAttention<'a>>>,
    feed_forward: Sublayer<FeedForward<'a>>,
    parallel: bool,
    normed_residual: bool,
    residual_scale: f32,
}

#[derive(Debug)]
struct Sublayer<T> {
    /// Name of the module whose output is added to the hidden state.
    name: String,
    module: T,
    before: Option<Norm>,
    output: Option<Norm>,
    sum: Option<Norm>,
}

impl<'a> Layer<'a> {
    /// Takes the tensors of a layer. `relative` are the biases of attention scores of the layer before, and then those of this one.
    pub fn load(
        spec: &spec::Layer,
        hidden_size: usize,
        relative: &mut Option<Arc<RelativeBias>>,
        loader: &mut Loader<'a, '_>,
    ) -> Result<Self> {
        let attention = SelfAttention::load(&spec.attention.module, relative, loader)?;
        let feed_forward = FeedForward::load(&spec.feed_forward.module, loader)?;
        let cross = match &spec.cross {
            None => None,
            Some(cross) => {
                let module = CrossAttention::load(&cross.module, loader)?;
                Some(Sublayer::load(cross, &cross.module.output.weight, module, hidden_size, loader)?)
            }
        };
        Ok(Self {
            hidden_size,
            attention: Sublayer::load(
                &spec.attention,
                &spec.attention.module.output.weight,
                attention,
                hidden_size,
                loader,
            )?,
            cross,
            feed_forward: Sublayer::load(
                &spec.feed_forward,
                spec.feed_forward.module.output(),
                feed_forward,
                hidden_size,
                loader,
            )?,
            parallel: spec.parallel,
            normed_residual: spec.normed_residual,
            residual_scale: spec.residual_scale,
        })
    }

    /// Replaces the hidden states of examples, whose rows are `spans`, by the output of this layer. The decoder of a sequence-to-sequence model
    /// attends to `source`.
    pub fn run(
        &self,
        hidden: &mut [f32],
        spans: &[Range<usize>],
        source: Option<Source<'_>>,
        work: &mut Work,
    ) {
        self.attend(hidden, spans, work);
        let attention = |hidden: &mut [f32], work: &mut Work| {
            self.add_attended(&self.attention, &self.attention.module.output, hidden, work);
        };
        // The modules of a parallel layer read the same hidden state, so the one that reads it now comes first.
        if self.parallel {
            self.feed_forward(hidden, work);
            attention(hidden, work);
            return;
        }
        attention(hidden, work);
        if let Some((cross, source)) = self.cross.as_ref().zip(source) {
            self.attend_to(cross, source, hidden, spans, work);
            self.add_attended(cross, &cross.module.output, hidden, work);
        }
        self.feed_forward(hidden, work);
    }

    /// Writes the output of the heads to `work.attended`.
    fn attend(&self, hidden: &mut [f32], spans: &[Range<usize>], work: &mut Work) {
        let size = self.hidden_size;
        let rows = hidden.len() / size;
        let module = &self.attention.module;
        let (qkv_width, width) = (module.attention.qkv_width(), module.attention.width());
        let Work { normed, qkv, attended, scores, panel, row, outputs, .. } = work;

        let qkv = sized(qkv, rows * qkv_width);
        for block in row_blocks(rows) {
            let hidden = &mut hidden[block.start * size..block.end * size];
            let x = self.attention.input(hidden, size, normed, outputs);
            let out = &mut qkv[block.start * qkv_width..block.end * qkv_width];
            module.project(View::dense(x, block.len(), size), out, panel);
            module.keep(out, outputs);
            if self.normed_residual {
                hidden.copy_from_slice(&normed[..block.len() * size]);
            }
        }
        for span in spans {
            module.finish_qkv(&mut qkv[span.start * qkv_width..span.end * qkv_width], row);
        }
        module.attention.run(qkv, spans, scores, sized(attended, rows * width));
    }

    /// The same for attention to the source.
    fn attend_to(
        &self,
        cross: &Sublayer<CrossAttention<'_>>,
        source: Source<'_>,
        hidden: &[f32],
        spans: &[Range<usize>],
        work: &mut Work,
    ) {
        let (size, width) = (self.hidden_size, cross.module.width());
        let rows = hidden.len() / size;
        let Work { normed, qkv, panel, outputs, .. } = work;
        let queries = sized(qkv, rows * width);
        for block in row_blocks(rows) {
            let x = cross.input(&hidden[block.start * size..block.end * size], size, normed, outputs);
            let out = &mut queries[block.start * width..block.end * width];
            cross.module.project(View::dense(x, block.len(), size), out, panel);
        }
        cross.module.heads(spans, source, size, work);
    }

    /// Adds the projected output of the heads, which is in `work.attended`.
    fn add_attended<T>(
        &self,
        sublayer: &Sublayer<T>,
        output: &Linear<'_>,
        hidden: &mut [f32],
        work: &mut Work,
    ) {
        let (size, width) = (self.hidden_size, output.weight.inputs());
        let Work { update, attended, panel, row, outputs, scales, .. } = work;
        let factor = scales.get(&sublayer.name);
        for block in row_blocks(hidden.len() / size) {
            let n = block.len();
            let hidden = &mut hidden[block.start * size..block.end * size];
            let attended = View::dense(&attended[block.start * width..block.end * width], n, width);
            let update = sized(update, n * size);
            output.weight.apply(attended, &mut ViewMut::dense(update, n, size), panel);
            if let Some(factor) = factor {
                scale(update, *factor);
            }
            outputs.add(&sublayer.name, update, size, output.bias.as_deref());
            outputs.linear(&output.module, output.bias.as_deref(), update, size, 0..size);
            sublayer.add(update, output.bias.as_deref(), self.residual_scale, hidden, row, outputs);
        }
    }

    /// Adds the output of the feed-forward module.
    fn feed_forward(&self, hidden: &mut [f32], work: &mut Work) {
        let size = self.hidden_size;
        let Work { normed, update, scores, panel, feed_forward, outputs, scales, .. } = work;
        let factor = scales.get(&self.feed_forward.name);
        for block in row_blocks(hidden.len() / size) {
            let n = block.len();
            let hidden = &mut hidden[block.start * size..block.end * size];
            let before = self.feed_forward.before.as_ref();
            let shared = self.attention.before.as_ref().filter(|_| self.parallel);
            let x = normalised(before.or(shared), hidden, size, normed);
            // A shared normalisation was kept with the attention.
            if let Some(norm) = before {
                norm.keep(x, outputs);
            }
            let output = sized(update, n * size);
            let x = View::dense(x, n, size);
            let bias = self.feed_forward.module.run(x, output, scores, feed_forward, panel, outputs);
            if let Some(factor) = factor {
                scale(output, *factor);
            }
            outputs.add(&self.feed_forward.name, output, size, bias);
            self.feed_forward.module.keep(output, outputs);
            if self.normed_residual {
                hidden.copy_from_slice(&normed[..n * size]);
            }
            self.feed_forward.add(output, bias, self.residual_scale, hidden, &mut feed_forward.row, outputs);
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
    /// `output` is the tensor of the projection whose output is added to the hidden state.
    fn load<'a, S>(
        spec: &spec::Sublayer<S>,
        output: &str,
        module: T,
        width: usize,
        loader: &mut Loader<'a, '_>,
    ) -> Result<Self> {
        let name = loader.module(output.strip_suffix(".weight").unwrap_or(output));
        let mut norm = |spec: &Option<spec::Norm>| spec.as_ref().map(|s| loader.norm(s, width)).transpose();
        Ok(Self {
            name,
            module,
            before: norm(&spec.before)?,
            output: norm(&spec.output)?,
            sum: norm(&spec.sum)?,
        })
    }

    /// The module's input.
    fn input<'h>(
        &self,
        hidden: &'h [f32],
        width: usize,
        normed: &'h mut Vec<f32>,
        outputs: &mut Outputs,
    ) -> &'h [f32] {
        let x = normalised(self.before.as_ref(), hidden, width, normed);
        if let Some(norm) = &self.before {
            norm.keep(x, outputs);
        }
        x
    }

    /// hidden ← hidden + scale · (output + bias), with the normalisations around it; `row` is working memory.
    fn add(
        &self,
        output: &mut [f32],
        bias: Option<&[f32]>,
        scale: f32,
        hidden: &mut [f32],
        row: &mut Vec<f32>,
        outputs: &mut Outputs,
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
            norm.keep(output, outputs);
        }
        add_scaled(hidden, output, scale);
        if let Some(norm) = &self.sum {
            norm.replace(hidden, norm.width(), row);
            norm.keep(hidden, outputs);
        }
    }
}
