//! Self-attention: projections to queries, keys and values, and what happens to them before and after the heads.

use std::sync::Arc;

use super::projections::{add_biases, keep, project};
use crate::math::activation::clip;
use crate::math::gemm::View;
use crate::math::norm::Norm;
use crate::math::rotary::Rotary;
use crate::model::attention::Attention;
use crate::model::loader::Loader;
use crate::model::matrix::Linear;
use crate::model::outputs::Outputs;
use crate::model::relative::RelativeBias;
use crate::model::spec;
use invarlock_error::Result;

/// An attention module with its weights.
#[derive(Debug)]
pub struct SelfAttention<'a> {
    pub attention: Attention,
    qkv: Vec<Linear<'a>>,
    pub output: Linear<'a>,
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

impl<'a> SelfAttention<'a> {
    /// Takes the tensors of the module. `relative` are the biases of the layer before, and then those of this one.
    pub fn load(
        spec: &spec::SelfAttention,
        relative: &mut Option<Arc<RelativeBias>>,
        loader: &mut Loader<'a, '_>,
    ) -> Result<Self> {
        let mut attention = loader.attention(&spec.attention);
        if let Some(name) = &spec.sinks {
            attention.sinks = Some(loader.values(name, &[attention.num_heads])?);
        }
        if let Some(spec::Relative { module, buckets }) = &spec.relative {
            let heads = attention.num_heads;
            let table = loader.table(module, buckets.count, heads)?;
            *relative = Some(Arc::new(RelativeBias::new(*buckets, heads, &table)));
        }
        attention.relative = relative.clone();
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
    pub fn project(&self, x: View<'_>, out: &mut [f32], panel: &mut Vec<f32>) {
        project(&self.qkv, x, out, panel);
    }

    /// Keeps the outputs of the projections, to which biases are still to be added.
    pub fn keep(&self, qkv: &[f32], outputs: &mut Outputs) {
        keep(&self.qkv, qkv, outputs);
    }

    /// Adds biases to the queries, keys and values of one window, normalises, limits and rotates them.
    pub fn finish_qkv(&self, qkv: &mut [f32], buffer: &mut Vec<f32>) {
        let Attention { num_heads, num_kv_heads, head_dim, .. } = self.attention;
        for (position, row) in qkv.chunks_exact_mut(self.attention.qkv_width()).enumerate() {
            add_biases(&self.qkv, row);
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
        spec::NormSpan::All => vec![loader.norm_of_shape(norm, &[heads * head_dim])?],
        spec::NormSpan::Head => vec![loader.norm_of_shape(norm, &[head_dim])?; heads],
        spec::NormSpan::HeadOwn => loader.norm_of_shape(norm, &[heads, head_dim])?.split(head_dim),
        spec::NormSpan::HeadModules => {
            let one = |head| spec::Norm::new(format!("{}.{head}", norm.module), norm.kind, norm.epsilon);
            (0..heads).map(|head| loader.norm_of_shape(&one(head), &[head_dim])).collect::<Result<_>>()?
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
