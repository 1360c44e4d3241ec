//! Attention, by blocks of queries so that masked scores beyond a block are not computed.

use std::ops::Range;
use std::sync::Arc;

use super::relative::RelativeBias;
use super::scratch::sized;
use crate::math::activation::softcap;
use crate::math::gemm::{View, ViewMut};
use crate::math::products::Products;
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
    /// The queries in rows of their own; in other rows all keys and then all values.
    Separate,
}

/// Which positions a query attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Its own and earlier ones.
    Causal,
    /// All.
    Full,
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
    /// Which positions a query attends to.
    pub mask: Mask,
    /// Number of positions that a query attends to in each direction, its own included; all when absent.
    pub sliding_window: Option<usize>,
    /// Scores become limit · tanh(score / limit).
    pub softcap: Option<f32>,
    /// Biases of the scores.
    pub alibi: Option<Alibi>,
    /// Biases of the scores by distance.
    pub relative: Option<Arc<RelativeBias>>,
    /// For each head a score that takes part in the softmax and has no value.
    pub sinks: Option<Vec<f32>>,
    /// The arithmetic of its products.
    pub products: Products,
}

impl Attention {
    /// Causal attention to all earlier positions with the usual scale, one over the root of `head_dim`, and split columns.
    pub fn new(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> Self {
        Self {
            num_heads,
            num_kv_heads,
            head_dim,
            columns: Columns::Split,
            scale: (1.0 / (head_dim as f64).sqrt()) as f32,
            mask: Mask::Causal,
            sliding_window: None,
            softcap: None,
            alibi: None,
            relative: None,
            sinks: None,
            products: Products::default(),
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
                Columns::Split | Columns::Separate => head,
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
                Columns::Separate => kv,
            }
    }

    /// First element of the values of a key-value head in a row.
    fn value_column(&self, kv: usize) -> usize {
        match self.columns {
            Columns::Split | Columns::Separate => self.key_column(kv) + self.num_kv_heads * self.head_dim,
            Columns::Grouped => self.key_column(kv) + self.head_dim,
        }
    }

    /// Width of a row of queries, keys and values.
    pub fn qkv_width(&self) -> usize {
        self.width() + self.kv_width()
    }

    /// Width of a row of keys and values.
    pub fn kv_width(&self) -> usize {
        2 * self.num_kv_heads * self.head_dim
    }

    /// Width of a row of the output, and of a row of queries.
    pub fn width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// The positions that any of these queries attends to, of `count`.
    fn attended(&self, queries: Range<usize>, count: usize) -> Range<usize> {
        let reach = self.sliding_window.map_or(usize::MAX, |window| window.saturating_sub(1));
        let last = match self.mask {
            Mask::Causal => queries.end,
            Mask::Full => queries.end.saturating_add(reach).min(count),
        };
        queries.start.saturating_sub(reach)..last
    }

    /// Attention within each span of rows.
    pub fn run(&self, qkv: &[f32], spans: &[Range<usize>], scores: &mut Vec<f32>, out: &mut [f32]) {
        for span in spans {
            let rows = Rows { data: qkv, stride: self.qkv_width(), span };
            self.sequence(rows, rows, scores, out);
        }
    }

    /// Attention of the queries of each span to the keys and values of the span of another sequence. Columns are separate.
    pub fn run_across(
        &self,
        (queries, spans): (&[f32], &[Range<usize>]),
        (keys, key_spans): (&[f32], &[Range<usize>]),
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        for (span, key_span) in spans.iter().zip(key_spans) {
            let queries = Rows { data: queries, stride: self.width(), span };
            let keys = Rows { data: keys, stride: self.kv_width(), span: key_span };
            self.sequence(queries, keys, scores, out);
        }
    }

    fn sequence(&self, queries: Rows<'_>, keys: Rows<'_>, scores: &mut Vec<f32>, out: &mut [f32]) {
        let count = queries.span.len();
        for head in 0..self.num_heads {
            for first in (0..count).step_by(BLOCK) {
                self.block((queries, first..count.min(first + BLOCK)), keys, head, scores, out);
            }
        }
    }

    fn block(
        &self,
        (rows, queries): (Rows<'_>, Range<usize>),
        keys: Rows<'_>,
        head: usize,
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let (size, count) = (self.head_dim, keys.span.len());
        let kv = head / self.queries_per_kv();
        let Range { start: oldest, end } = self.attended(queries.clone(), count);
        let (m, n) = (queries.len(), end - oldest);
        let q = rows.heads(queries.start, m, self.query_column(head), size);
        let k = keys.heads(oldest, n, self.key_column(kv), size);
        let v = keys.heads(oldest, n, self.value_column(kv), size);

        let scores = sized(scores, m * n);
        self.products.multiply(&mut ViewMut::dense(scores, m, n), q, k.transposed(), self.scale);
        for (row, query) in scores.chunks_exact_mut(n).zip(queries.clone()) {
            let Range { start, end } = self.attended(query..query + 1, count);
            let (start, end) = (start - oldest, end - oldest);
            row[..start].fill(0.0);
            row[end..].fill(0.0);
            self.probabilities(head, query, oldest + start, &mut row[start..end]);
        }
        let target = &mut out[(rows.span.start + queries.start) * self.width() + head * size..];
        let mut target = ViewMut::new(target, m, size, self.width());
        self.products.multiply(&mut target, View::dense(scores, m, n), v, 1.0);
    }

    /// Turns a query's scores of the keys from `first` on into probabilities.
    fn probabilities(&self, head: usize, query: usize, first: usize, scores: &mut [f32]) {
        if let Some(limit) = self.softcap {
            softcap(scores, limit);
        }
        if let Some(relative) = &self.relative {
            relative.add(head, query, first, scores);
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

/// The heads of a sequence: some of the rows of a matrix.
#[derive(Debug, Clone, Copy)]
struct Rows<'x> {
    data: &'x [f32],
    /// Elements of a row.
    stride: usize,
    /// The rows of the sequence.
    span: &'x Range<usize>,
}

impl<'x> Rows<'x> {
    /// One head of `count` positions from `first` on.
    fn heads(self, first: usize, count: usize, column: usize, size: usize) -> View<'x> {
        View::new(&self.data[(self.span.start + first) * self.stride + column..], count, size, self.stride, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::relative::Buckets;
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
                    let attended = |j: usize| a.sliding_window.is_none_or(|window| i.abs_diff(j) < window);
                    let end = if a.mask == Mask::Causal { i + 1 } else { span.end };
                    let keys: Vec<usize> = (span.start..end).filter(|j| attended(*j)).collect();
                    let score = |j: &usize| {
                        let dot = |d: usize| at(i, a.query_column(h), d) * at(*j, a.key_column(kv), d);
                        let mut score = (0..a.head_dim).map(dot).sum::<f64>() * f64::from(a.scale);
                        if let Some(limit) = a.softcap.map(f64::from) {
                            score = limit * (score / limit).tanh();
                        }
                        if let Some(alibi) = &a.alibi {
                            score -= f64::from(alibi.slopes[h]) * (i - j) as f64;
                        }
                        if let Some(relative) = &a.relative {
                            score += f64::from(relative.bias(h, *j as i64 - i as i64));
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
            Attention { mask: Mask::Full, ..sized(2, 2, 8, None) },
            Attention { mask: Mask::Full, ..sized(2, 1, 4, Some(1)) },
            Attention { mask: Mask::Full, ..sized(2, 1, 4, Some(9)) },
            Attention { mask: Mask::Full, ..sized(1, 1, 4, Some(200)) },
            Attention { mask: Mask::Full, relative: Some(relative(true)), ..sized(2, 2, 8, None) },
            Attention { relative: Some(relative(false)), ..sized(2, 2, 8, None) },
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

    fn relative(bidirectional: bool) -> Arc<RelativeBias> {
        let buckets = Buckets { count: 10, max_distance: 24, bidirectional };
        let table: Vec<f32> = (0..20).map(|i| (i * 7 % 20) as f32 / 5.0 - 2.0).collect();
        Arc::new(RelativeBias::new(buckets, 2, &table))
    }

    #[test]
    fn queries_attend_to_another_sequence() {
        let own = Attention { mask: Mask::Full, scale: 0.3, ..Attention::new(4, 2, 3) };
        let across = Attention { columns: Columns::Separate, ..own.clone() };
        // The same numbers in one matrix, whose second half of each span attends to the first half as well.
        let spans = [0..10, 10..290];
        let width = own.qkv_width();
        let qkv: Vec<f32> = (0..290 * width).map(|i| ((i * 7919) % 1013) as f32 / 400.0 - 1.2).collect();
        let part = |columns: Range<usize>| -> Vec<f32> {
            qkv.chunks_exact(width).flat_map(|row| row[columns.clone()].to_vec()).collect()
        };
        let (queries, keys) = (part(0..own.width()), part(own.width()..width));
        let (mut whole, mut out) = (vec![0.0; 290 * own.width()], vec![f32::NAN; 150 * own.width()]);
        own.run(&qkv, &spans, &mut Vec::new(), &mut whole);
        // Queries 0 to 4 of the first span, and all but the first 135 of the second.
        let chosen: Vec<f32> = [0..5, 145..290]
            .into_iter()
            .flat_map(|rows| queries[rows.start * own.width()..rows.end * own.width()].to_vec())
            .collect();
        across.run_across((&chosen, &[0..5, 5..150]), (&keys, &spans), &mut Vec::new(), &mut out);
        let truth = [0..5, 145..290]
            .into_iter()
            .flat_map(|rows| whole[rows.start * own.width()..rows.end * own.width()].to_vec());
        for (found, truth) in out.iter().zip(truth) {
            assert!((found - truth).abs() < 1e-5, "{found} {truth}");
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
