//! Memory a worker reuses from window to window, and how windows are laid out in it.

use std::ops::Range;

use crate::math::rotary::Rotary;

/// Buffers of one worker; they grow to what the largest batch needs and stay.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The residual stream.
    pub(super) hidden: Vec<f32>,
    /// A normalised copy of it, or what is to be added to it.
    pub(super) update: Vec<f32>,
    /// Queries, keys and values side by side.
    pub(super) qkv: Vec<f32>,
    /// Output of the attention heads.
    pub(super) mixed: Vec<f32>,
    /// The inner layer.
    pub(super) inner: Vec<f32>,
    /// Its second half, where it is gated.
    pub(super) gated: Vec<f32>,
    /// Attention scores, or logits.
    pub(super) scores: Vec<f32>,
    /// Converted weights.
    pub(super) panel: Vec<f32>,
    /// Angles of positions.
    pub(super) rotary: Rotary,
}

/// The first `len` elements, as whatever was left there; they are written before they are read.
pub(super) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Rows that pass through a layer together, which bounds the memory that a long window takes.
pub(super) const ROWS: usize = 512;

/// Blocks of at most [`ROWS`] rows.
pub(super) fn row_blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(ROWS).map(move |first| first..rows.min(first + ROWS))
}

/// The rows of each window when they are laid end to end.
pub(super) fn spans(windows: &[&[u32]]) -> Vec<Range<usize>> {
    let mut end = 0;
    let mut span = |w: &&[u32]| {
        let start = end;
        end += w.len();
        start..end
    };
    windows.iter().map(&mut span).collect()
}
