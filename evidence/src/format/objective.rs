//! What a language model was trained to predict, which decides how its loss is computed.

use serde::{Deserialize, Serialize};

/// The training objective of a language model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub enum Objective {
    /// Each token from the tokens before it.
    #[default]
    #[serde(rename = "causal")]
    Causal,
    /// Chosen tokens from all other tokens, before and after.
    #[serde(rename = "mlm")]
    Masked,
    /// Each token of a target from a source and from the target's tokens before it.
    #[serde(rename = "seq2seq")]
    Seq2Seq,
}

impl Objective {
    /// All objectives.
    pub const ALL: [Self; 3] = [Self::Causal, Self::Masked, Self::Seq2Seq];

    /// The adapter of the Python package that loads such models.
    pub fn adapter(self) -> &'static str {
        match self {
            Self::Causal => "hf_causal",
            Self::Masked => "hf_mlm",
            Self::Seq2Seq => "hf_seq2seq",
        }
    }

    /// The objective whose models this adapter loads.
    pub fn of_adapter(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|objective| objective.adapter() == name)
    }

    /// Whether each token is predicted from those before it. Such windows need no labels, and formats do not state it.
    pub fn is_causal(&self) -> bool {
        *self == Self::Causal
    }

    /// `loss_type` of reports.
    pub fn loss_type(self) -> &'static str {
        match self {
            Self::Causal => "causal",
            Self::Masked => "mlm",
            Self::Seq2Seq => "seq2seq",
        }
    }

    /// In words, for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Causal => "causal language model",
            Self::Masked => "masked language model",
            Self::Seq2Seq => "sequence-to-sequence model",
        }
    }
}
