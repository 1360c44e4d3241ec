//! The tokenizer of a subject, where it is not the one that made the windows.
//!
//! The windows are token ids of the baseline. A subject therefore needs no tokenizer, and tokens that no window uses may differ. A token
//! that a window uses must be the same for both: else the losses are about different texts.

use serde::{Deserialize, Serialize};

/// The tokenizer of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SubjectTokenizer {
    /// The checkpoint has none.
    Missing,
    /// It differs from the baseline's, but not in the tokens that windows use.
    Other {
        /// Digest of its vocabulary, as `meta.tokenizer_hash` for the baseline.
        hash: String,
        /// Number of its tokens, added ones included.
        vocab_size: u64,
        /// Digest of how it makes ids from text, as `data.tokenizer_mapping_sha256` for the baseline.
        mapping_sha256: String,
        /// Whether that is the baseline's.
        same_mapping: bool,
        /// SHA-256 over the ids that windows use and its tokens of these ids ([`crate::numerics::digest::used_tokens`]).
        used_tokens_sha256: String,
        /// Number of tokens with ids from the size of the baseline's vocabulary on.
        added_tokens: u64,
        /// The first of these tokens.
        added_token_names: Vec<String>,
    },
}
