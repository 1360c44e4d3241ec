//! Causal attention, by blocks of queries so that masked scores beyond a block are not computed.

use std::ops::Range;

use super::scratch::sized;
use crate::math::gemm::{View, ViewMut, multiply};
use crate::math::softmax::softmax;

/// Queries handled at once.
const BLOCK: usize = 128;

/// Sizes of an attention layer. A row of its input holds the queries of all heads, then the keys, then the values.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; a divisor of `num_heads`.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Number of positions that a query attends to, its own included; all earlier ones when absent.
    pub sliding_window: Option<usize>,
}

impl Attention {
    /// Width of a row of queries, keys and values.
    pub fn qkv_width(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
    }

    /// Width of a row of the output.
    pub fn width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// First position that the query at `position` attends to.
    fn oldest(&self, position: usize) -> usize {
        self.sliding_window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Attention within each span of rows.
    pub fn run(&self, qkv: &[f32], spans: &[Range<usize>], scores: &mut Vec<f32>, out: &mut [f32]) {
        let queries_per_kv = self.num_heads / self.num_kv_heads;
        for span in spans {
            for head in 0..self.num_heads {
                for first in (0..span.len()).step_by(BLOCK) {
                    let last = span.len().min(first + BLOCK);
                    self.block(qkv, span.start, first..last, head, head / queries_per_kv, scores, out);
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one step of a loop nest")]
    fn block(
        &self,
        qkv: &[f32],
        row: usize,
        queries: Range<usize>,
        head: usize,
        kv: usize,
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let (stride, size) = (self.qkv_width(), self.head_dim);
        let oldest = self.oldest(queries.start);
        let (m, n) = (queries.len(), queries.end - oldest);
        let heads = |position: usize, column: usize, rows: usize| {
            View::new(&qkv[(row + position) * stride + column * size..], rows, size, stride, 1)
        };
        let q = heads(queries.start, head, m);
        let k = heads(oldest, self.num_heads + kv, n);
        let v = heads(oldest, self.num_heads + self.num_kv_heads + kv, n);

        let scores = sized(scores, m * n);
        multiply(&mut ViewMut::dense(scores, m, n), q, k.transposed(), self.scale);
        for (row, query) in scores.chunks_exact_mut(n).zip(queries.clone()) {
            let (start, end) = (self.oldest(query) - oldest, query + 1 - oldest);
            row[..start].fill(0.0);
            row[end..].fill(0.0);
            softmax(&mut row[start..end]);
        }
        let target = &mut out[(row + queries.start) * self.width() + head * size..];
        multiply(&mut ViewMut::new(target, m, size, self.width()), View::dense(scores, m, n), v, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in f64, one query at a time.
    fn by_definition(a: &Attention, qkv: &[f32], spans: &[Range<usize>]) -> Vec<f32> {
        let stride = a.qkv_width();
        let rows = qkv.len() / stride;
        let mut out = vec![0.0; rows * a.width()];
        for span in spans {
            for i in span.clone() {
                for h in 0..a.num_heads {
                    let kv = h / (a.num_heads / a.num_kv_heads);
                    let at = |row: usize, column: usize, d: usize| {
                        f64::from(qkv[row * stride + column * a.head_dim + d])
                    };
                    let attended = |j: usize| a.sliding_window.is_none_or(|window| i - j < window);
                    let keys: Vec<usize> = (span.start..=i).filter(|j| attended(*j)).collect();
                    let score = |j: &usize| {
                        let s: f64 = (0..a.head_dim).map(|d| at(i, h, d) * at(*j, a.num_heads + kv, d)).sum();
                        (s * f64::from(a.scale)).exp()
                    };
                    let weights: Vec<f64> = keys.iter().map(score).collect();
                    let total: f64 = weights.iter().sum();
                    for d in 0..a.head_dim {
                        let value = |(j, w): (&usize, &f64)| w * at(*j, a.num_heads + a.num_kv_heads + kv, d);
                        let mixed: f64 = keys.iter().zip(&weights).map(value).sum();
                        out[i * a.width() + h * a.head_dim + d] = (mixed / total) as f32;
                    }
                }
            }
        }
        out
    }

    #[test]
    fn blocks_match_the_definition() {
        for (num_heads, num_kv_heads, head_dim, sliding_window) in
            [(2, 2, 8, None), (4, 2, 6, None), (4, 1, 5, Some(11)), (2, 1, 16, Some(1)), (1, 1, 3, Some(150))]
        {
            let a = Attention { num_heads, num_kv_heads, head_dim, scale: 0.3, sliding_window };
            let spans = [0..1, 1..8, 8..308, 308..436];
            let qkv: Vec<f32> =
                (0..436 * a.qkv_width()).map(|i| ((i * 7919) % 1013) as f32 / 400.0 - 1.2).collect();
            let mut out = vec![f32::NAN; 436 * a.width()];
            a.run(&qkv, &spans, &mut Vec::new(), &mut out);
            for (found, truth) in out.iter().zip(by_definition(&a, &qkv, &spans)) {
                assert!((found - truth).abs() < 2e-5, "{a:?}: {found} {truth}");
            }
        }
    }
}
