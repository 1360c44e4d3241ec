//! How windows are made from the rows of a dataset.

use serde::{Deserialize, Serialize};

/// Which rows become windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// The first rows, in order.
    #[default]
    LocalJsonl,
    /// The first rows, in order; each is a pair of a source and a target.
    LocalJsonlPairs,
    /// Rows in an order that the seed decides, as CPython's `random.shuffle` gives it.
    HfText,
    /// Rows in an order that the seed decides, as numpy's `RandomState.permutation` gives it; both arms are equally difficult.
    Wikitext2,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::LocalJsonl, Self::LocalJsonlPairs, Self::HfText, Self::Wikitext2];

    /// Its name, as upstream writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LocalJsonl => "local_jsonl",
            Self::LocalJsonlPairs => "local_jsonl_pairs",
            Self::HfText => "hf_text",
            Self::Wikitext2 => "wikitext2",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == name)
    }

    /// Whether it is the default, which formats leave out.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How the texts of rows lie in windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// Each row gives one window: truncated, or padded.
    #[default]
    Rows,
    /// The tokens of all rows, each followed by the end token, are cut into full windows; a rest is left out. Where the family of the model
    /// starts texts with a begin token, each window starts with it.
    Documents,
}

impl Packing {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Documents => "documents",
        }
    }

    /// Whether it is the default, which formats leave out.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
