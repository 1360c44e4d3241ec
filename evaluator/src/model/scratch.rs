//! Memory that a worker reuses for each group of windows, and the layout of windows in the state between layers.

use std::collections::BTreeMap;
use std::ops::Range;

use invarlock_evidence::format::statistics::ACTIVATION_TOKENS;

use super::outputs::Outputs;

/// What one layer leaves to the next, for some examples.
#[derive(Debug, Default)]
pub struct State {
    /// The residual stream.
    pub(super) hidden: Vec<f32>,
    /// That of the encoder of a sequence-to-sequence model.
    pub(super) source: Vec<f32>,
}

/// Working memory of one worker, for a layer or the head. Buffers grow to the size that the largest group of windows needs and are not shrunk.
#[derive(Debug, Default)]
pub struct Work {
    /// A normalised copy of the hidden states.
    pub(super) normed: Vec<f32>,
    /// The values to add to the hidden states.
    pub(super) update: Vec<f32>,
    /// Queries, keys and values side by side.
    pub(super) qkv: Vec<f32>,
    /// Keys and values of the source side by side.
    pub(super) keys: Vec<f32>,
    /// Output of the attention heads.
    pub(super) attended: Vec<f32>,
    /// Attention scores, logits of a router, or logits.
    pub(super) scores: Vec<f32>,
    /// Weights converted to single precision.
    pub(super) panel: Vec<f32>,
    /// One row that is being normalised.
    pub(super) row: Vec<f32>,
    /// Working memory of a feed-forward module.
    pub(super) feed_forward: FeedForwardWork,
    /// Outputs of modules, where that is asked for.
    pub outputs: Outputs,
    /// Factors of the outputs of projections, without their biases, by the names of their modules.
    pub scales: BTreeMap<String, f32>,
}

/// Working memory of a feed-forward module.
#[derive(Debug, Default)]
pub(super) struct FeedForwardWork {
    /// Activations.
    pub(super) intermediate: Vec<f32>,
    /// Rows that chose an expert.
    pub(super) gathered: Vec<f32>,
    /// Output of an expert.
    pub(super) output: Vec<f32>,
    /// One row that is being normalised.
    pub(super) row: Vec<f32>,
}

/// The first `len` elements, which hold old values: the caller writes them before it reads them.
pub(super) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Rows that pass through a layer together. This bounds the memory that a long window needs.
pub(super) const ROWS: usize = 512;

// The outputs that are kept for the guards are in the first block.
const _: () = assert!(ACTIVATION_TOKENS <= ROWS);

/// Blocks of at most [`ROWS`] rows.
pub(super) fn row_blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(ROWS).map(move |first| first..rows.min(first + ROWS))
}

/// The rows of each window when the windows are laid end to end.
pub(super) fn spans<T>(windows: &[&[T]]) -> Vec<Range<usize>> {
    let mut end = 0;
    let mut span = |window: &&[T]| {
        let start = end;
        end += window.len();
        start..end
    };
    windows.iter().map(&mut span).collect()
}
