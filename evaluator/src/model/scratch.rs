//! Memory that a worker reuses for each group of windows, and the layout of windows in it.

use std::ops::Range;

use crate::math::rotary::Rotary;

/// Buffers of one worker. They grow to the size that the largest group needs and are not shrunk.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The residual stream.
    pub(super) hidden: Vec<f32>,
    /// A normalised copy of `hidden`, or the values to add to it.
    pub(super) update: Vec<f32>,
    /// Queries, keys and values side by side.
    pub(super) qkv: Vec<f32>,
    /// Output of the attention heads.
    pub(super) attended: Vec<f32>,
    /// Activations of the feed-forward layer.
    pub(super) intermediate: Vec<f32>,
    /// Output of `up_proj`, in models with a gated feed-forward layer.
    pub(super) gated: Vec<f32>,
    /// Attention scores, or logits.
    pub(super) scores: Vec<f32>,
    /// Weights converted to single precision.
    pub(super) panel: Vec<f32>,
    /// Rotary angles.
    pub(super) rotary: Rotary,
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

/// Blocks of at most [`ROWS`] rows.
pub(super) fn row_blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(ROWS).map(move |first| first..rows.min(first + ROWS))
}

/// The rows of each window when the windows are laid end to end.
pub(super) fn spans(windows: &[&[u32]]) -> Vec<Range<usize>> {
    let mut end = 0;
    let mut span = |window: &&[u32]| {
        let start = end;
        end += window.len();
        start..end
    };
    windows.iter().map(&mut span).collect()
}
