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
    /// The first rows, in order; each is a prompt with choices of its own, of which one is right.
    LocalJsonlChoices,
    /// The first rows, in order; each is a text with one of the labels of the dataset.
    LocalJsonlLabels,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::LocalJsonl,
        Self::LocalJsonlPairs,
        Self::HfText,
        Self::Wikitext2,
        Self::LocalJsonlChoices,
        Self::LocalJsonlLabels,
    ];

    /// Its name, as upstream writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LocalJsonl => "local_jsonl",
            Self::LocalJsonlPairs => "local_jsonl_pairs",
            Self::HfText => "hf_text",
            Self::Wikitext2 => "wikitext2",
            Self::LocalJsonlChoices => "local_jsonl_choices",
            Self::LocalJsonlLabels => "local_jsonl_labels",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == name)
    }

    /// Whether rows are examples with choices, on which an accuracy is measured.
    pub fn has_choices(self) -> bool {
        matches!(self, Self::LocalJsonlChoices | Self::LocalJsonlLabels)
    }

    /// Whether it is the default, which formats leave out.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The most tokens of the windows of both arms together, padding included: a report of more would exceed the verifier's size limit.
pub const MAX_TOKENS: usize = 4 << 20;

/// The members of a row that contain what a model chooses from, and the right choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answers {
    /// Each row has choices of its own.
    Choices {
        /// Member with the choices.
        choices_field: String,
        /// Member with the right one.
        answer_field: String,
    },
    /// All rows have the same choices.
    Labels {
        /// Member with the right one.
        label_field: String,
        /// The choices; absent where they are the different labels of the rows that are read, sorted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        labels: Option<Vec<String>>,
    },
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
