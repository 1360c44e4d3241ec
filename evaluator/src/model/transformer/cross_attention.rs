//! Attention of a decoder to the output of its encoder.

use std::ops::Range;

use super::projections::{add_biases, keep, project};
use crate::math::gemm::View;
use crate::model::attention::Attention;
use crate::model::loader::Loader;
use crate::model::matrix::Linear;
use crate::model::outputs::Outputs;
use crate::model::scratch::{Work, row_blocks, sized};
use crate::model::spec;
use invarlock_error::Result;

/// The output of an encoder.
#[derive(Debug, Clone, Copy)]
pub struct Source<'s> {
    /// Hidden states.
    pub hidden: &'s [f32],
    /// The rows of each example.
    pub spans: &'s [Range<usize>],
}

/// An attention module with its weights.
#[derive(Debug)]
pub struct CrossAttention<'a> {
    attention: Attention,
    query: Linear<'a>,
    key_value: Vec<Linear<'a>>,
    pub output: Linear<'a>,
}

impl<'a> CrossAttention<'a> {
    /// Takes the tensors of the module.
    pub fn load(spec: &spec::CrossAttention, loader: &mut Loader<'a, '_>) -> Result<Self> {
        Ok(Self {
            attention: loader.attention(&spec.attention),
            query: loader.linear(&spec.query)?,
            key_value: spec.key_value.iter().map(|linear| loader.linear(linear)).collect::<Result<_>>()?,
            output: loader.linear(&spec.output)?,
        })
    }

    /// Elements of a row of queries and of the output of the heads.
    pub fn width(&self) -> usize {
        self.attention.width()
    }

    /// Adds biases to queries, and writes the output of the heads to `work.attended`. `work.qkv` holds the queries without biases, and `spans`
    /// are the rows of each example.
    pub fn heads(&self, spans: &[Range<usize>], source: Source<'_>, size: usize, work: &mut Work) {
        let Work { qkv, keys, attended, scores, panel, outputs, .. } = work;
        let rows = spans.last().map_or(0, |span| span.end);
        let queries = sized(qkv, rows * self.width());
        keep(std::slice::from_ref(&self.query), queries, outputs);
        queries
            .chunks_exact_mut(self.width())
            .for_each(|row| add_biases(std::slice::from_ref(&self.query), row));
        let keys = self.keys(source, size, keys, panel, outputs);
        let attended = sized(attended, rows * self.width());
        self.attention.run_across((queries, spans), (keys, source.spans), scores, attended);
    }

    /// Queries of some rows, without biases.
    pub fn project(&self, x: View<'_>, out: &mut [f32], panel: &mut Vec<f32>) {
        project(std::slice::from_ref(&self.query), x, out, panel);
    }

    /// Keys and values of the source.
    fn keys<'k>(
        &self,
        source: Source<'_>,
        size: usize,
        keys: &'k mut Vec<f32>,
        panel: &mut Vec<f32>,
        outputs: &mut Outputs,
    ) -> &'k [f32] {
        let rows = source.hidden.len() / size;
        let width = self.attention.kv_width();
        let keys = sized(keys, rows * width);
        for block in row_blocks(rows) {
            let x = View::dense(&source.hidden[block.start * size..block.end * size], block.len(), size);
            project(&self.key_value, x, &mut keys[block.start * width..block.end * width], panel);
        }
        keep(&self.key_value, keys, outputs);
        keys.chunks_exact_mut(width).for_each(|row| add_biases(&self.key_value, row));
        keys
    }
}
