//! Windows: what a model is measured on.

mod replay;
mod select;

pub use replay::replay;
pub use select::{Asked, select};

use crate::limits;
use invarlock_error::{Result, bail};

/// A window: token ids filled up to its length, of which the first `real` are tokens of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// All ids.
    pub ids: Vec<u32>,
    /// Tokens of the text.
    pub real: usize,
}

impl Window {
    /// The tokens of the text.
    pub fn tokens(&self) -> &[u32] {
        &self.ids[..self.real]
    }
}

/// One arm.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arm {
    /// Unique over both arms.
    pub ids: Vec<u64>,
    /// In the same order.
    pub windows: Vec<Window>,
}

impl Arm {
    /// Tokens of all windows.
    pub fn tokens(&self) -> u64 {
        self.windows.iter().map(|w| w.real as u64).sum()
    }
}

/// Both arms, and how they came about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows {
    /// Checks drift.
    pub preview: Arm,
    /// Is gated on.
    pub final_: Arm,
    /// Rows of the dataset that were passed over for having no text.
    pub blank: usize,
    /// Rows that were passed over for having fewer than two tokens.
    pub short: usize,
    /// Each reduction for duplicates: how many there were, and the windows an arm after it.
    pub adjustments: Vec<(usize, usize)>,
}

/// Refuses a length or a number of windows that would take all memory.
pub fn check_size(seq_len: usize, windows: usize) -> Result<()> {
    if !(2..=limits::SEQ_LEN).contains(&seq_len) {
        bail!(
            Input,
            "a window of {seq_len} tokens cannot be measured: seq_len must be from 2 to {}",
            limits::SEQ_LEN
        );
    }
    if seq_len.checked_mul(windows).is_none_or(|tokens| tokens > limits::TOKENS) {
        bail!(
            Input,
            "{windows} windows of {seq_len} tokens are more than {} tokens: ask for fewer or shorter windows",
            limits::TOKENS
        );
    }
    Ok(())
}
