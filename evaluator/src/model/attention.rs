//! Causal attention, by blocks of queries so that masked scores beyond a block are not computed.

use std::ops::Range;

use super::scratch::sized;
use crate::math::activation::softcap;
use crate::math::gemm::{View, ViewMut, multiply};
use crate::math::softmax::{softmax, softmax_with_sink};

/// Queries handled at once.
const BLOCK: usize = 128;

/// How the heads lie in a row of queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// The queries of all heads, then the keys, then the values.
    Split,
    /// For each key-value head its queries, its key and its value.
    Grouped,
}

/// Attention with linear biases: a score grows with the position of its key (arXiv 2108.12409).
#[derive(Debug, Clone, PartialEq)]
pub struct Alibi {
    /// Growth per position, for each head.
    slopes: Vec<f32>,
    /// Falcon rounds slopes and biases to bfloat16, and scales the biases as the scores.
    rounded_scale: Option<f32>,
}

impl Alibi {
    /// The slopes for `heads` heads: a geometric series that ends with 2^-8, and, where the number is no power of two, every other
    /// member of the series for twice the next lower one.
    pub fn new(heads: usize, rounded_scale: Option<f32>) -> Self {
        let power = 1 << heads.ilog2();
        let series =
            |count: usize| (1..=count).map(move |i| 2f64.powf(-8.0 * i as f64 / count as f64) as f32);
        let slopes = series(power).chain(series(2 * power).step_by(2).take(heads - power)).collect();
        Self { slopes, rounded_scale }
    }

    /// Adds the biases of the keys from `first` on.
    fn add(&self, head: usize, first: usize, scores: &mut [f32]) {
        let slope = self.slopes[head];
        let positions = (first..).map(|p| p as f32);
        match self.rounded_scale {
            None => scores.iter_mut().zip(positions).for_each(|(score, p)| *score += slope * p),
            Some(scale) => {
                let round = |v: f32| half::bf16::from_f32(v).to_f32();
                let slope = round(slope);
                scores.iter_mut().zip(positions).for_each(|(score, p)| *score += round(slope * p) * scale);
            }
        }
    }
}

/// An attention layer between its projections.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; a divisor of `num_heads`.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// How the heads lie in a row of the input.
    pub columns: Columns,
    /// Factor of the scores.
    pub scale: f32,
    /// Number of positions that a query attends to, its own included; all earlier ones when absent.
    pub sliding_window: Option<usize>,
    /// Scores become limit · tanh(score / limit).
    pub softcap: Option<f32>,
    /// Biases of the scores.
    pub alibi: Option<Alibi>,
    /// For each head a score that takes part in the softmax and has no value.
    pub sinks: Option<Vec<f32>>,
}

impl Attention {
    /// Attention to all earlier positions with the usual scale, one over the root of `head_dim`, and split columns.
    pub fn new(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> Self {
        Self {
            num_heads,
            num_kv_heads,
            head_dim,
            columns: Columns::Split,
            scale: (1.0 / (head_dim as f64).sqrt()) as f32,
            sliding_window: None,
            softcap: None,
            alibi: None,
            sinks: None,
        }
    }

    fn queries_per_kv(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// First element of the queries of a head in a row.
    pub fn query_column(&self, head: usize) -> usize {
        let n = self.queries_per_kv();
        self.head_dim
            * match self.columns {
                Columns::Split => head,
                Columns::Grouped => head / n * (n + 2) + head % n,
            }
    }

    /// First element of the keys of a key-value head in a row.
    pub fn key_column(&self, kv: usize) -> usize {
        let n = self.queries_per_kv();
        self.head_dim
            * match self.columns {
                Columns::Split => self.num_heads + kv,
                Columns::Grouped => kv * (n + 2) + n,
            }
    }

    /// First element of the values of a key-value head in a row.
    fn value_column(&self, kv: usize) -> usize {
        match self.columns {
            Columns::Split => self.key_column(kv) + self.num_kv_heads * self.head_dim,
            Columns::Grouped => self.key_column(kv) + self.head_dim,
        }
    }

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
        for span in spans {
            for head in 0..self.num_heads {
                for first in (0..span.len()).step_by(BLOCK) {
                    let last = span.len().min(first + BLOCK);
                    self.block(qkv, span.start, first..last, head, scores, out);
                }
            }
        }
    }

    fn block(
        &self,
        qkv: &[f32],
        row: usize,
        queries: Range<usize>,
        head: usize,
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let (stride, size) = (self.qkv_width(), self.head_dim);
        let kv = head / self.queries_per_kv();
        let oldest = self.oldest(queries.start);
        let (m, n) = (queries.len(), queries.end - oldest);
        let heads = |position: usize, column: usize, rows: usize| {
            View::new(&qkv[(row + position) * stride + column..], rows, size, stride, 1)
        };
        let q = heads(queries.start, self.query_column(head), m);
        let k = heads(oldest, self.key_column(kv), n);
        let v = heads(oldest, self.value_column(kv), n);

        let scores = sized(scores, m * n);
        multiply(&mut ViewMut::dense(scores, m, n), q, k.transposed(), self.scale);
        for (row, query) in scores.chunks_exact_mut(n).zip(queries.clone()) {
            let (start, end) = (self.oldest(query) - oldest, query + 1 - oldest);
            row[..start].fill(0.0);
            row[end..].fill(0.0);
            self.probabilities(head, oldest + start, &mut row[start..end]);
        }
        let target = &mut out[(row + queries.start) * self.width() + head * size..];
        multiply(&mut ViewMut::new(target, m, size, self.width()), View::dense(scores, m, n), v, 1.0);
    }

    /// Turns the scores of the keys from `first` on into probabilities.
    fn probabilities(&self, head: usize, first: usize, scores: &mut [f32]) {
        if let Some(limit) = self.softcap {
            softcap(scores, limit);
        }
        if let Some(alibi) = &self.alibi {
            alibi.add(head, first, scores);
        }
        match &self.sinks {
            None => softmax(scores),
            Some(sinks) => softmax_with_sink(scores, sinks[head]),
        }
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
                    let at = |row: usize, column: usize, d: usize| f64::from(qkv[row * stride + column + d]);
                    let attended = |j: usize| a.sliding_window.is_none_or(|window| i - j < window);
                    let keys: Vec<usize> = (span.start..=i).filter(|j| attended(*j)).collect();
                    let score = |j: &usize| {
                        let dot = |d: usize| at(i, a.query_column(h), d) * at(*j, a.key_column(kv), d);
                        let mut score = (0..a.head_dim).map(dot).sum::<f64>() * f64::from(a.scale);
                        if let Some(limit) = a.softcap.map(f64::from) {
                            score = limit * (score / limit).tanh();
                        }
                        if let Some(alibi) = &a.alibi {
                            score -= f64::from(alibi.slopes[h]) * (i - j) as f64;
                        }
                        score.exp()
                    };
                    let weights: Vec<f64> = keys.iter().map(score).collect();
                    let sink = a.sinks.as_ref().map_or(0.0, |sinks| f64::from(sinks[h]).exp());
                    let total: f64 = weights.iter().sum::<f64>() + sink;
                    for d in 0..a.head_dim {
                        let value = |(j, w): (&usize, &f64)| w * at(*j, a.value_column(kv), d);
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
        let sized = |heads, kv, dim, sliding_window| Attention {
            scale: 0.3,
            sliding_window,
            ..Attention::new(heads, kv, dim)
        };
        for a in [
            sized(2, 2, 8, None),
            Attention { columns: Columns::Grouped, ..sized(4, 2, 6, None) },
            Attention { softcap: Some(2.0), ..sized(4, 1, 5, Some(11)) },
            Attention { sinks: Some(vec![0.5, -1.0]), ..sized(2, 1, 16, Some(1)) },
            Attention {
                alibi: Some(Alibi { slopes: vec![0.25], rounded_scale: None }),
                ..sized(1, 1, 3, Some(150))
            },
        ] {
            let spans = [0..1, 1..8, 8..308, 308..436];
            let qkv: Vec<f32> =
                (0..436 * a.qkv_width()).map(|i| ((i * 7919) % 1013) as f32 / 400.0 - 1.2).collect();
            let mut out = vec![f32::NAN; 436 * a.width()];
            // A bias that does not depend on the query has no effect, so absolute positions do as distances.
            a.run(&qkv, &spans, &mut Vec::new(), &mut out);
            for (found, truth) in out.iter().zip(by_definition(&a, &qkv, &spans)) {
                assert!((found - truth).abs() < 2e-5, "{a:?}: {found} {truth}");
            }
        }
    }

    #[test]
    fn grouped_columns_cover_a_row() {
        let a = Attention { columns: Columns::Grouped, ..Attention::new(6, 2, 4) };
        let mut columns: Vec<usize> = (0..6).map(|h| a.query_column(h)).collect();
        columns.extend((0..2).flat_map(|kv| [a.key_column(kv), a.value_column(kv)]));
        assert_eq!(columns, [0, 4, 8, 20, 24, 28, 12, 16, 32, 36]);
    }

    #[test]
    fn slopes_are_those_of_the_paper() {
        assert_eq!(Alibi::new(8, None).slopes, (1..=8).map(|i| 0.5f32.powi(i)).collect::<Vec<_>>());
        let six = Alibi::new(6, None).slopes;
        assert_eq!(six[..4], [0.25, 0.0625, 0.015_625, 0.003_906_25]);
        assert_eq!(six[4..], [0.5, 0.125]);
    }
}
