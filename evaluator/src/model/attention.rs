//! Causal attention, by blocks of queries so that the part a mask would hide is not computed.

use std::ops::Range;

use super::scratch::sized;
use crate::math::gemm::{View, ViewMut, multiply};
use crate::math::softmax::softmax;

/// Queries handled at once.
const BLOCK: usize = 128;

/// Sizes of an attention layer. A row of its input holds the queries of all heads, then keys, then values.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// Elements a head.
    pub head: usize,
    /// What scores are multiplied with.
    pub scale: f32,
    /// How many positions back a query sees, itself counted; all when absent.
    pub window: Option<usize>,
}

impl Attention {
    /// Width of a row of queries, keys and values.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head
    }

    /// Width of a row of the output.
    pub fn width(&self) -> usize {
        self.heads * self.head
    }

    /// First position that the query at `position` sees.
    fn oldest(&self, position: usize) -> usize {
        self.window.map_or(0, |w| (position + 1).saturating_sub(w))
    }

    /// Attention within each span of rows.
    pub fn run(&self, qkv: &[f32], spans: &[Range<usize>], scores: &mut Vec<f32>, out: &mut [f32]) {
        let queries_per_kv = self.heads / self.kv_heads;
        for span in spans {
            for head in 0..self.heads {
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
        let (stride, size) = (self.qkv_width(), self.head);
        let oldest = self.oldest(queries.start);
        let (m, n) = (queries.len(), queries.end - oldest);
        let part = |position: usize, column: usize, rows: usize| {
            View::new(&qkv[(row + position) * stride + column * size..], rows, size, stride, 1)
        };
        let q = part(queries.start, head, m);
        let k = part(oldest, self.heads + kv, n);
        let v = part(oldest, self.heads + self.kv_heads + kv, n);

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
    fn plain(a: &Attention, qkv: &[f32], spans: &[Range<usize>]) -> Vec<f32> {
        let stride = a.qkv_width();
        let rows = qkv.len() / stride;
        let mut out = vec![0.0; rows * a.width()];
        for span in spans {
            for i in span.clone() {
                for h in 0..a.heads {
                    let kv = h / (a.heads / a.kv_heads);
                    let at = |row: usize, column: usize, d: usize| {
                        f64::from(qkv[row * stride + column * a.head + d])
                    };
                    let seen = |j: usize| a.window.is_none_or(|w| i - j < w);
                    let keys: Vec<usize> = (span.start..=i).filter(|j| seen(*j)).collect();
                    let score = |j: &usize| {
                        let s: f64 = (0..a.head).map(|d| at(i, h, d) * at(*j, a.heads + kv, d)).sum();
                        (s * f64::from(a.scale)).exp()
                    };
                    let weights: Vec<f64> = keys.iter().map(score).collect();
                    let total: f64 = weights.iter().sum();
                    for d in 0..a.head {
                        let value = |(j, w): (&usize, &f64)| w * at(*j, a.heads + a.kv_heads + kv, d);
                        let mixed: f64 = keys.iter().zip(&weights).map(value).sum();
                        out[i * a.width() + h * a.head + d] = (mixed / total) as f32;
                    }
                }
            }
        }
        out
    }

    #[test]
    fn blocks_agree_with_the_definition() {
        for (heads, kv_heads, head, window) in
            [(2, 2, 8, None), (4, 2, 6, None), (4, 1, 5, Some(11)), (2, 1, 16, Some(1)), (1, 1, 3, Some(150))]
        {
            let a = Attention { heads, kv_heads, head, scale: 0.3, window };
            let spans = [0..1, 1..8, 8..308, 308..436];
            let qkv: Vec<f32> =
                (0..436 * a.qkv_width()).map(|i| ((i * 7919) % 1013) as f32 / 400.0 - 1.2).collect();
            let mut out = vec![f32::NAN; 436 * a.width()];
            a.run(&qkv, &spans, &mut Vec::new(), &mut out);
            for (found, truth) in out.iter().zip(plain(&a, &qkv, &spans)) {
                assert!((found - truth).abs() < 2e-5, "{a:?}: {found} {truth}");
            }
        }
    }
}
