//! Windows: the token sequences on which a model is measured.

mod documents;
mod random;
mod replay;
mod select;
mod shuffled;
mod stratified;

pub use documents::{Documents, documents};

pub use replay::replay;
pub use select::{WindowRequest, equal_rows, select};
pub use shuffled::shuffled;
pub use stratified::stratified;

use invarlock_evidence::format::dataset::Packing;

use crate::limits;
use invarlock_error::{Error, Result, bail};

/// A window: token ids padded to its length, of which the first `real` are tokens of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Token ids, padding included.
    pub ids: Vec<u32>,
    /// Number of tokens of the text.
    pub real: usize,
}

impl Window {
    /// The tokens of the text.
    pub fn tokens(&self) -> &[u32] {
        &self.ids[..self.real]
    }
}

/// The windows of one arm: `preview` or `final`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arm {
    /// Ids of the windows, unique over both arms.
    pub ids: Vec<u64>,
    /// The windows, in the order of `ids`.
    pub windows: Vec<Window>,
}

impl Arm {
    /// Number of tokens of the text in all windows.
    pub fn tokens(&self) -> u64 {
        self.windows.iter().map(|w| w.real as u64).sum()
    }
}

/// Both arms, and statistics of their selection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows {
    /// Windows for the drift check.
    pub preview: Arm,
    /// Windows for the gates.
    pub final_: Arm,
    /// Rows of the dataset that were skipped because they have no text.
    pub blank: usize,
    /// Rows that were skipped because they have fewer than two tokens.
    pub short: usize,
    /// Reductions because of duplicates: number of duplicates, and windows per arm afterwards.
    pub adjustments: Vec<(usize, usize)>,
    /// How the texts of rows lie in windows.
    pub packing: Packing,
    /// Digest of the chat template that made the texts.
    pub chat_template: Option<String>,
    /// The first two rows that gave the same window, in an order without the skipped blank rows, from 1.
    pub equal_rows: Option<(usize, usize)>,
}

impl Windows {
    /// The ids that occur in the texts of the windows, sorted.
    pub fn used_ids(&self) -> Vec<u32> {
        let windows = self.preview.windows.iter().chain(&self.final_.windows);
        let mut used: Vec<u32> = windows.flat_map(|window| window.tokens()).copied().collect();
        used.sort_unstable();
        used.dedup();
        used
    }
}

/// An error for a length or a number of windows that would need too much memory.
pub fn check_size(seq_len: usize, windows: usize) -> Result<()> {
    if !(2..=limits::SEQ_LEN).contains(&seq_len) {
        bail!(Input, "seq_len {seq_len}; supported: 2 to {}", limits::SEQ_LEN);
    }
    if seq_len.checked_mul(windows).is_none_or(|tokens| tokens > limits::TOKENS) {
        return Err(Error::input(format!(
            "{windows} windows of {seq_len} tokens are more than {} tokens",
            limits::TOKENS
        ))
        .with_hint("lower preview_n, final_n or seq_len"));
    }
    Ok(())
}
