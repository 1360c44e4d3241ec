//! Windows: the token sequences on which a model is measured.

mod documents;
mod examples;
mod from_dataset;
mod open;
mod random;
mod replay;
mod select;
mod shuffled;
mod source;
mod stratified;

pub use from_dataset::joinable;
pub use open::open;
pub use select::equal_rows;
pub use source::WindowsSource;

use std::collections::BTreeSet;

use invarlock_evidence::format::choices::{Choices, parts};
use invarlock_evidence::format::dataset::Packing;
use invarlock_evidence::format::masking::Masked;

use crate::limits;
use crate::model::Example;
use invarlock_error::{Error, Result, bail};

/// A window: token ids padded to its length, of which the first `real` are tokens of the text, and what a model is to predict in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Token ids, padding included.
    pub ids: Vec<u32>,
    /// Number of tokens of the text.
    pub real: usize,
    /// The tokens to predict, as [`Example::labels`] has them; none where a causal model predicts all.
    pub labels: Option<Vec<i64>>,
}

impl Window {
    /// The tokens of the text.
    pub fn tokens(&self) -> &[u32] {
        &self.ids[..self.real]
    }

    /// What a model is measured on.
    pub fn example(&self) -> Example<'_> {
        Example { tokens: self.tokens(), labels: self.labels.as_deref() }
    }

    /// The tokens to predict, without positions that are not predicted.
    pub fn predicted(&self) -> Vec<u32> {
        match &self.labels {
            Some(labels) => labels.iter().filter_map(|label| u32::try_from(*label).ok()).collect(),
            None => self.tokens().get(1..).unwrap_or_default().to_vec(),
        }
    }

    /// The weight of its loss: the number of labels. Without labels, upstream counts all tokens.
    pub fn weight(&self) -> u64 {
        match &self.labels {
            Some(labels) => labels.iter().filter(|label| **label >= 0).count() as u64,
            None => self.real as u64,
        }
    }
}

/// The windows of one arm: `preview` or `final`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arm {
    /// Ids of the windows, unique over both arms.
    pub ids: Vec<u64>,
    /// The windows, in the order of `ids`.
    pub windows: Vec<Window>,
    /// The examples whose choices the windows are; none unless an accuracy is measured.
    pub examples: Option<Vec<Choices>>,
}

impl Arm {
    /// The number of examples, or of windows where they are no choices.
    pub fn count(&self) -> usize {
        self.examples.as_ref().map_or(self.windows.len(), Vec::len)
    }

    /// The windows and ids of each example, or each window where they are no choices.
    fn units(&self) -> Vec<(&[Window], &[u64])> {
        match &self.examples {
            Some(examples) => parts(examples, &self.windows).zip(parts(examples, &self.ids)).collect(),
            None => self.windows.chunks(1).zip(self.ids.chunks(1)).collect(),
        }
    }

    /// Number of tokens of the text in all windows.
    pub fn tokens(&self) -> u64 {
        self.windows.iter().map(|w| w.real as u64).sum()
    }
}

/// Both arms, and statistics of their selection.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// How they were masked; none unless the model is a masked language model.
    pub masked: Option<Masked>,
    /// How the texts of rows lie in windows.
    pub packing: Packing,
    /// Digest of the chat template that made the texts.
    pub chat_template: Option<String>,
    /// The first two rows that gave the same window, in an order without the skipped blank rows, from 1.
    pub equal_rows: Option<(usize, usize)>,
}

impl Windows {
    /// The ids that occur in the texts of the windows and in their labels, sorted.
    pub fn used_ids(&self) -> Vec<u32> {
        let windows = self.preview.windows.iter().chain(&self.final_.windows);
        let mut used = BTreeSet::new();
        for window in windows {
            used.extend(window.tokens());
            used.extend(window.predicted());
        }
        used.into_iter().collect()
    }
}

/// The end of a hint where the rows of a dataset are short or repeat each other.
pub const JOIN: &str = "; or pass --packing documents, which joins the rows into full windows";

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
